"""The same snapshots sampled in several ways: what groups such results, and what a section that compares them says whose they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edm2core.plan.sweep import Swept
from edm2core.report.collect import Report, Result
from edm2core.report.evaluations import evaluations_of
from edm2core.report.protocol import apart
from edm2core.report.results import Row

Found = Mapping[Row, Result]
Whose = tuple[str, str, int, str, str, str, int | None]
"""Data set, recipe without what is swept, epoch, average, metric, protocol, number of images."""
Ways = dict[str, dict[int, dict[Row, Result]]]
"""By recipe of the experiment, which is one way to sample, and training seed: the rows of its draws."""


@dataclass(frozen=True)
class Sampled:
    """A metric of one recipe's snapshots at one epoch, which were sampled in several ways."""

    dataset: str
    recipe: str  # without what is swept
    epoch: int
    ema: str
    metric: str
    protocol: str
    n: int | None

    @property
    def whose(self) -> Whose:
        return self.dataset, self.recipe, self.epoch, self.ema, self.metric, self.protocol, self.n


def grouped(report: Report, found: Found, swept: Callable[[Result], Sequence[str]]) -> dict[Whose, Ways]:
    """The rows whose samples differ in swept settings alone, together; those of which `swept` names no setting are left out."""
    groups: dict[Whose, Ways] = {}
    for row, result in found.items():
        point, settings = result.task.subject.sweep, swept(result)
        samples = report.input(result, "samples")
        if not settings or point is None or row.value is None or row.seed is None or samples is None or evaluations_of(samples) is None:
            continue
        protocol = apart(report, result, row.metric, settings)
        whose = (row.dataset, without(point, settings), row.epoch or 0, row.ema or "", row.metric, protocol, row.n)
        groups.setdefault(whose, {}).setdefault(row.recipe or "", {}).setdefault(row.seed, {})[row] = result
    return groups


def without(point: Swept, settings: Sequence[str]) -> str:
    """What a recipe of a sweep is called when these settings are not told."""
    return Swept(point.of, {setting: value for setting, value in point.at.items() if setting not in settings}).name
