"""When a job that has lost pods frees the others, and when it then tries again."""

import time
from typing import Literal

Advice = Literal["", "free", "rest", "resume"]
TRIES_AGAIN = "edm2/tries-again"  # annotation of a job that is suspended until it tries again: what it lacked
SHORTEST_S, LONGEST_S = 30.0, 600.0  # of the pauses, each twice as long as the one before


class Gathering:
    """A job whose pods wait for those that are lost. They hold their GPUs meanwhile, so after `rejoin_s` seconds all are freed."""

    def __init__(self, rejoin_s: float) -> None:
        self._rejoin_s = rejoin_s
        self._was_whole = False
        self._alone_since: float | None = None
        self._again_at: float | None = None
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
            if now - self._alone_since > self._rejoin_s:
                self._alone_since, self.tries = None, self.tries + 1
                return "free"
        return ""
