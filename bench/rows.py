"""What is measured, what it is to reach, and how it is read off the runs."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.compare import Measurements, Spread, ratio, share
from components.launcher.processes import MALLOC


@dataclass(frozen=True)
class Options:
    """How long and with how much to measure."""

    repeats: int = 5
    batch: int = 64
    threads: int = len(os.sched_getaffinity(0))
    rehearsal: bool = False  # rows for a GPU run on the CPU at the smallest size, so that they are known to work

    @property
    def device(self) -> str:
        """What the rows for a GPU run on."""
        return "cpu" if self.rehearsal else "cuda"

    @property
    def bare(self) -> dict[str, str]:
        """The environment of a plain side."""
        return {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}

    @property
    def tuned(self) -> dict[str, str]:
        """The environment that the launcher gives the product's processes."""
        return {**MALLOC, **self.bare}


@dataclass(frozen=True)
class Result:
    """One line of the table. `cpu` is the ratio in processor time, which other programs on the machine disturb less."""

    reached: str
    plain: str = ""
    product: str = ""
    share: str = ""
    cpu: str = ""
    facts: Mapping[str, float] = field(default_factory=dict)  # numbers that a program reads: bench.gpu.advice does

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """A benchmark. `what` may name options: {batch}, {threads}; `needs` says which device it is for."""

    name: str
    what: str
    target: str
    measure: Callable[[Options], Result]
    needs: str = "cpu"
    seconds: float = 0.0  # about how long it takes on an H100, where it is for a GPU

    def describe(self, options: Options) -> str:
        return self.what.format(batch=options.batch, threads=options.threads)


def compared(found: Measurements, work: float, unit: str, count: int) -> Result:
    """Plain against product for the same work, `work` FLOPs on `count` things of `unit`, and the share of the limit's rate of each."""
    speed = {name: Spread.of([count / run["seconds"] for run in runs]) for name, runs in found.items() if name != "limit"}
    return Result(
        f"{ratio(found, 'plain', 'product').text()}×",
        f"{speed['plain'].text(1)} {unit}/s",
        f"{speed['product'].text(1)} {unit}/s",
        f"{share(found, 'plain', work).text()} → {share(found, 'product', work).text()}",
        f"{ratio(found, 'plain', 'product', 'cpu_seconds').text()}×",
    )
