"""The numbers of a report as rows: the same in JSON, in CSV and on the page."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from edm2core.metrics import names
from edm2core.plan.probe_metrics import PROBES, is_probe, probe_label
from edm2core.registry import METRICS
from edm2core.report.calibrations import calibration_facts
from edm2core.report.collect import Report, Result
from edm2core.report.protocol import describe, protocol
from edm2core.report.sciences import science_facts

K = TypeVar("K")


@dataclass(frozen=True)
class Row:
    """One measured value; what does not apply to it is None. A value that is not finite is None too."""

    dataset: str
    recipe: str | None
    seed: int | None
    epoch: int | None
    ema: str | None
    draw: int | None
    n: int | None
    protocol: str
    metric: str
    value: float | None
    error: float | None = None  # standard error from the sampling of images, not from the training's seed
    deviation: float | None = None  # of a probe: standard deviation between its seeds, of which the value is the mean


def rows(report: Report, *, rechecks: bool = False) -> dict[Row, Result]:
    """Every value that the store holds for the plan, in a fixed order, with the result it comes from.

    Those of snapshots that were evaluated again as they had been the best stand apart, so that they never decide what is best.
    """
    found = [
        (_row(report, result, metric, value), result)
        for result in report.results.values()
        if result.manifest is not None and result.task.stage in ("metrics", "probe")
        if result.task.subject.recheck == rechecks
        for metric, value in result.manifest.measured.items()
    ]
    return dict(sorted(found, key=lambda pair: _order(pair[0])))


def label(metric: str) -> str:
    """A metric's name for a person."""
    return probe_label(metric) or names.label(metric) or metric.replace("_", " ")


def short_label(metric: str) -> str:
    """A metric's name within a sentence: without features and unit."""
    if is_probe(metric):
        return label(metric).removesuffix(", %")
    name, extractor = names.split(metric)
    return label(metric).removesuffix(" from an imported reference").split(" (")[0] if extractor or label(metric) != name else metric


def rank(metric: str) -> tuple[Any, ...]:
    """Where a metric stands among others: of samples first, then of probes, each in its table's order."""
    name, order = (metric, list(PROBES)) if is_probe(metric) else (names.split(metric)[0], list(METRICS))
    return is_probe(metric), order.index(name) if name in order else len(order), metric


def higher_is_better(metric: str) -> bool:
    facts = METRICS.get(names.split(metric)[0])
    return is_probe(metric) or (facts is not None and facts.higher_is_better)


def better(metric: str) -> str:
    """Which values are better: higher or lower."""
    return "higher" if higher_is_better(metric) else "lower"


def best_of(metric: str, values: Mapping[K, float]) -> K:
    """What has the best of these values of a metric, the first of several."""
    return (max if higher_is_better(metric) else min)(values, key=lambda each: values[each])


def run_facts(report: Report) -> dict[str, Any]:
    """Times, hosts, attempts and code version of what the report stands on, and the state of every task."""
    done = [result for result in report.results.values() if result.manifest]
    return {
        "name": report.name,
        "started": report.run.started or None,
        "finished": report.run.finished or None,
        "command": report.run.command or None,
        "code_versions": distinct(done, "code_version"),
        "science": science_facts(report),
        "hosts": distinct(done, "host"),
        "devices": distinct(done, "device"),
        "calibrations": [calibration_facts(manifest) for manifest in report.calibrations],
        "tasks": [
            {
                "task": str(result.task.ref),
                "title": result.task.title,
                "state": result.outcome.state,
                "reason": result.outcome.reason or None,
                "attempt": result.manifest.attempt if result.manifest else None,
                "started": clean(result.provenance.get("started")),
                "seconds": clean(result.provenance.get("seconds")),
            }
            for result in report.results.values()
        ],
    }


def distinct(results: list[Result], name: str) -> list[str]:
    """The different values of one provenance entry, sorted."""
    return sorted({str(r.provenance[name]) for r in results if r.provenance.get(name) not in (None, "")})


def clean(value: Any) -> Any:
    """The value, or None for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _row(report: Report, result: Result, metric: str, value: float | None) -> Row:
    subject = result.task.subject
    errors = result.metadata.get("standard_errors", {})
    return Row(
        subject.dataset,
        subject.recipe or None,
        subject.seed if subject.recipe else None,
        subject.epoch if subject.recipe else None,
        subject.ema or None,
        subject.draw,
        result.metadata.get("n", result.metadata.get("test_images")),
        describe(protocol(report, result, metric)),
        metric,
        clean(None if value is None else float(value)),
        clean(errors.get(metric)),
        clean(result.metadata.get("deviations", {}).get(metric)),
    )


def _order(row: Row) -> tuple[Any, ...]:
    parts = (row.dataset, row.recipe or "", row.seed, row.epoch, row.ema or "", row.draw, row.metric, row.protocol, row.n)
    return tuple(-1 if value is None else value for value in parts)
