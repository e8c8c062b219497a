"""A metric against the relative width of the average that samples were drawn from, and each training's best width."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

from edm2core.plan.manifest import Ref
from edm2core.report.collect import Result
from edm2core.report.results import Row, best_of


@dataclass
class Sweep:
    """One metric under one protocol, of one training at one epoch, by relative width."""

    dataset: str
    metric: str
    protocol: str
    recipe: str
    seed: int
    epoch: int
    values: dict[float, float] = field(default_factory=dict)  # σ_rel → value, the mean of its draws; ascending
    fixed: float | None = None  # with the fixed EMA
    results: dict[float | None, tuple[Ref, ...]] = field(default_factory=dict)  # of each value, one a draw; the fixed EMA's at None

    @property
    def best(self) -> tuple[float, float]:
        """σ_rel and value."""
        best = best_of(self.metric, self.values)
        return best, self.values[best]

    @property
    def at_an_end(self) -> bool:
        """Whether the best width is the narrowest or the widest tried, so that a better one may lie beyond."""
        return self.best[0] in (min(self.values), max(self.values))


def sweeps(rows: Mapping[Row, Result]) -> list[Sweep]:
    """Every metric that was taken at several widths, in the rows' order."""
    found: dict[tuple[str, str, str, str, int, int], dict[str, dict[Ref, float]]] = {}
    for row, result in rows.items():
        if row.recipe is None or row.seed is None or row.epoch is None or row.ema is None or row.value is None:
            continue
        who = (row.dataset, row.metric, row.protocol, row.recipe, row.seed, row.epoch)
        found.setdefault(who, {}).setdefault(row.ema, {})[result.task.ref] = row.value
    made = []
    for who, by_ema in found.items():
        means = {ema: fmean(values.values()) for ema, values in by_ema.items()}
        results = {None if ema == "fixed" else float(ema): tuple(values) for ema, values in by_ema.items()}
        fixed = means.pop("fixed", None)
        if len(means) > 1:
            made.append(Sweep(*who, dict(sorted((float(ema), value) for ema, value in means.items())), fixed, results))
    return made
