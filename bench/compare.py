"""Timing several ways of doing one thing in turn, so that what else the machine does hits all of them alike."""

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One way: `make` is MODULE:FUNCTION, called with the arguments in a process of its own with this environment."""

    make: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """The median of several measurements, and the middle half of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def text(self, digits: int = 2) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


Measurements = dict[str, list[dict[str, float]]]


def ended(code: int | None) -> str:
    """Words for how a process ended that should not have."""
    if code != -signal.SIGKILL:
        return f"ended with code {code}"
    return "was killed, most likely since the machine ran out of memory: try a smaller --batch"


def in_turn(sides: Mapping[str, Side], repeats: int, warmup: int = 1) -> Measurements:
    """Run every side once, `repeats` times over, after `warmup` runs that do not count; what each run reported, by side."""
    found: Measurements = {name: [] for name in sides}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(side)).ready() for name, side in sides.items()}
        for repeat in range(warmup + repeats):
            order = list(workers) if repeat % 2 else list(workers)[::-1]  # neither always follows the other
            for name in order:
                facts = workers[name].run()
                if repeat >= warmup:
                    found[name].append(facts)
    return found


def ratio(measurements: Measurements, slow: str, fast: str, key: str = "seconds") -> Spread:
    """How many times as long `slow` takes as `fast`, from runs that followed each other."""
    return Spread.of([a[key] / b[key] for a, b in zip(measurements[slow], measurements[fast], strict=True)])


def share(measurements: Measurements, name: str, work: float, limit: str = "limit") -> Spread:
    """What share of the limit's rate a side reaches that does `work` in the unit of the limit's `rate`."""
    return Spread.of([work / run["seconds"] / top["rate"] for run, top in zip(measurements[name], measurements[limit], strict=True)])


class Worker:
    """A side's process, as a context: the leader of a session, with which whatever it started ends.

    Raises RuntimeError where the process is gone.
    """

    def __init__(self, side: Side) -> None:
        self.name = f"{side.make} {json.dumps(dict(side.arguments))}"
        command = [sys.executable, "-m", "bench.worker", side.make, json.dumps(dict(side.arguments))]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **side.environment},
            start_new_session=True,
            encoding="utf-8",
        )

    def ready(self) -> "Worker":
        """Itself, once it has made what it times."""
        self._answer()
        return self

    def run(self) -> dict[str, float]:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # no answer comes either, which says how it ended
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            raise RuntimeError(f"{self.name} {ended(code)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
