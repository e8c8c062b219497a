"""When a job that has lost pods frees the others or goes on without the lost ones, and when it tries again with all."""

import time
from typing import Literal

Advice = Literal["", "free", "rest", "resume"]
TRIES_AGAIN = "edm2/tries-again"  # annotation of a job that is suspended until it tries again: what it lacked
WHOLE = "edm2/whole"  # annotation of a job that goes on with fewer pods: how many it had before
SHORTEST_S, LONGEST_S = 30.0, 600.0  # of the pauses, each twice as long as the one before
GROWS_S, SELDOM_S = 600.0, 3600.0  # of the times between two tries with all pods, each twice as long as the one before
ROOM_S = 30.0  # the most time that such a try waits for the pods that are missing


class Gathering:
    """A job whose pods wait for those that are lost. They hold their GPUs meanwhile, so after `rejoin_s` seconds all are freed."""

    def __init__(self, rejoin_s: float) -> None:
        self._rejoin_s = rejoin_s
        self._was_whole = False
        self._alone_since: float | None = None
        self._again_at: float | None = None
        self._grows_at: float | None = None
        self._growths = 0  # tries with all pods since the job was last whole
        self.tries = 0  # how often all pods were freed since the job was last whole

    @property
    def pause_s(self) -> float:
        """How long the job pauses after its last try."""
        return min(SHORTEST_S * 2.0 ** max(self.tries - 1, 0), LONGEST_S)

    def see(self, running: int, missing: int, pausing: bool) -> Advice:
        """What to do with a job of which so many pods run and are missing. `pausing`: it is suspended until it tries again."""
        now = time.monotonic()
        if pausing:
            self._again_at = self._again_at or now + self.pause_s
            if now < self._again_at:
                return "rest"
            self._again_at = None
            return "resume"
        if not missing:
            self._was_whole, self._alone_since, self.tries = True, None, 0
        elif not running:
            self._alone_since = None  # nothing is held
        elif self._was_whole:
            self._alone_since = self._alone_since or now
            if now - self._alone_since > (min(self._rejoin_s, ROOM_S) if self._growths else self._rejoin_s):
                self._alone_since, self.tries = None, self.tries + 1
                return "free"
        return ""

    def grows(self, all_there: bool) -> bool:
        """Whether a job that runs, with fewer pods than it had or `all_there`, is to try with all of them now."""
        now = time.monotonic()
        if all_there:
            self._grows_at, self._growths = None, 0
            return False
        self._grows_at = self._grows_at or now + min(GROWS_S * 2.0**self._growths, SELDOM_S)
        if now < self._grows_at:
            return False
        self._grows_at, self._growths = None, self._growths + 1
        return True
