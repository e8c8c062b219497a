"""Waiting in tests: for what another thread or process does, with a deadline. Time itself passes by a clock that the test turns."""

import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


def wait_until(happened: Callable[[], Answer], seconds: float = 60.0, every_s: float = 0.02, failing: Callable[[], str] = str) -> Answer:
    """The first true answer of `happened`. Where none comes within the seconds, the test fails with what `failing` says."""
    deadline = time.monotonic() + seconds
    while not (answer := happened()):
        assert time.monotonic() < deadline, f"It did not happen within {seconds:g} s. {failing()}"
        time.sleep(every_s)
    return answer


class TurnedClock:
    """Stands in for the module `time` within a module under test. Its monotonic clock is ahead by as much as the test has turned it."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def turn(self, seconds: float) -> None:
        """Let this much time pass at once."""
        self.ahead_s += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)
