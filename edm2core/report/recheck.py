"""The best of several snapshots evaluated again with fresh samples: what it is worth without having been picked for it."""

from dataclasses import dataclass
from statistics import fmean, stdev

from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, redrawn
from edm2core.report.collect import Report, Result
from edm2core.report.frontier_words import answers_of
from edm2core.report.guidance import picked
from edm2core.report.results import Row, best_of, rows

Choice = tuple[str, str, int, str, str, str]  # data set, recipe, seed, average, metric, protocol


@dataclass(frozen=True)
class Best:
    """Of one training and average, the epoch with the best value of a metric."""

    dataset: str
    recipe: str
    seed: int
    ema: str
    metric: str
    epoch: int
    value: float  # the mean of its draws, for which it was chosen
    among: int  # epochs: the k of best-of-k
    again: tuple[float, ...]  # values with fresh draws
    again_from: tuple[Ref, ...]  # the results that these are of
    chosen_from: tuple[Ref, ...]  # those that `value` is of, one a draw

    @property
    def mean(self) -> float:
        return fmean(self.again)

    @property
    def deviation(self) -> float | None:
        return stdev(self.again) if len(self.again) > 1 else None


def best_again(report: Report) -> list[Best]:
    """Every choice that was evaluated again."""
    fresh: dict[tuple[Choice, int], dict[Ref, float]] = {}
    for row, result in rows(report, rechecks=True).items():
        if row.value is not None and row.epoch is not None:
            fresh.setdefault((_choice(row), row.epoch), {})[result.task.ref] = row.value
    found = []
    for choice, epochs in _choices(rows(report)).items():
        epoch, value = _best(choice, epochs)
        if len(epochs) < 2:  # drawn again for another choice, such as a frontier's
            continue
        if again := fresh.get((choice, epoch)):
            chosen = tuple(result.task.ref for result in epochs[epoch].values())
            found.append(Best(*choice[:5], epoch, value, len(epochs), tuple(again.values()), tuple(again), chosen))
    return found


def rechecks(report: Report, draws: int) -> list[Task]:
    """The tasks that evaluate what was chosen, by each metric of samples, with so many draws not used in choosing it.

    Chosen are the best snapshot of each training with several, and on a frontier the sampler that is cheaper and good enough, at the last
    epoch. The one that it was held against is drawn again with it, from the same noise. Of a sweep over guidance it is the best at the
    last epoch, by the metric that stands first, and the unguided one with it.
    """
    tasks: dict[str, Task] = {}
    for choice, epochs in _choices(rows(report)).items():
        if len(epochs) < 2:
            continue
        found = epochs[_best(choice, epochs)[0]]
        _draw_again(tasks, report, next(iter(found.values())), max(row.draw or 0 for row in found) + 1, draws)
    frontiers = [answer.frontier for answer in answers_of(report) if answer.latest and answer.frontier.picked]
    samplers = [point for frontier in frontiers for point in (frontier.careful, frontier.picked) if point]
    for measured in [*(measured for point in samplers for measured in point.by_seed.values()), *picked(report)]:
        results = [report.results[ref] for ref in measured.results]
        _draw_again(tasks, report, results[0], max(result.task.subject.draw or 0 for result in results) + 1, draws)
    return list(tasks.values())


def _draw_again(tasks: dict[str, Task], report: Report, measured: Result, first: int, draws: int) -> None:
    """Add the tasks that draw and measure the samples of a result again, with so many draws from the number `first` on."""
    samples = report.results[measured.task.inputs["samples"]].task
    for draw in range(first, first + draws):
        for task in redrawn(samples, measured.task, draw):
            tasks.setdefault(str(task.ref), task)


def _choices(found: dict[Row, Result]) -> dict[Choice, dict[int, dict[Row, Result]]]:
    """The values that a snapshot is chosen by: of samples, by training, average, metric and protocol, then by epoch."""
    choices: dict[Choice, dict[int, dict[Row, Result]]] = {}
    for row, result in found.items():
        if "samples" in result.task.inputs and row.value is not None and row.epoch is not None:
            choices.setdefault(_choice(row), {}).setdefault(row.epoch, {})[row] = result
    return choices


def _choice(row: Row) -> Choice:
    return (row.dataset, row.recipe or "", row.seed or 0, row.ema or "", row.metric, row.protocol)


def _best(choice: Choice, epochs: dict[int, dict[Row, Result]]) -> tuple[int, float]:
    means = {epoch: fmean(row.value for row in found if row.value is not None) for epoch, found in sorted(epochs.items())}
    best = best_of(choice[4], means)
    return best, means[best]
