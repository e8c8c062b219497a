"""Trainings as an experiment tracker knows them: parameters, tags, points by epoch, and where each result is. Plain data."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from edm2core.addresses import shown
from edm2core.config import Recipe
from edm2core.config.describe import flattened
from edm2core.config.settings import DiagnosticsSettings
from edm2core.plan.keys import key_of
from edm2core.plan.manifest import Ref
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import training_title, trajectory_ref
from edm2core.report.collect import Report, Result
from edm2core.report.results import Row, distinct, rows

Curve = list[dict[str, Any]]


class Point(NamedTuple):
    """A metric's value after so many completed epochs; `time` is when it was known, in seconds since 1970."""

    metric: str
    epoch: int
    value: float
    time: float


class Data(NamedTuple):
    """The images of a training: the data set's name, the digest of its manifest, and where it is."""

    name: str
    digest: str
    location: str


@dataclass(frozen=True)
class Tracked:
    """One training, and all that was measured of it under one set of settings."""

    identity: str  # the same whenever the same training is looked at in the same way, whatever epochs are asked for
    name: str
    parameters: dict[str, str]  # what decides results: never another value under one identity
    tags: dict[str, str]  # what may change
    points: tuple[Point, ...]
    data: Data | None
    results: list[dict[str, Any]]  # every finished result: what, where, and the digests of its files
    undone: tuple[str, ...]  # states of the tasks without a result


def tracked(report: Report, run: str, live: Mapping[Ref, Curve]) -> list[Tracked]:
    """Every training of a report.

    `run` is the id under which the store records it; `live` holds, by trajectory, what its process has said of its curve so far.
    """
    groups: dict[tuple[Ref, str], dict[Ref, Result]] = {}
    for result in report.results.values():
        if snapshot := report.snapshot(result):
            group = groups.setdefault((trajectory_ref(snapshot.task), result.task.subject.recipe), {})
            group |= {snapshot.task.ref: snapshot, result.task.ref: result}  # a sweep's recipes may share snapshots
    known, found, again = report.plan.recipes, rows(report), rows(report, rechecks=True)
    return [
        _tracked(report, run, trajectory, recipe, list(group.values()), known.get(recipe), found, again, live.get(trajectory, []))
        for (trajectory, recipe), group in groups.items()
    ]


def _tracked(
    report: Report,
    run: str,
    trajectory: Ref,
    name: str,
    group: list[Result],
    recipe: Recipe | None,
    found: Mapping[Row, Result],
    again: Mapping[Row, Result],
    live: Curve,
) -> Tracked:
    subject, done = group[0].task.subject, [result for result in group if result.manifest]
    who = {"recipe": name, "seed": str(subject.seed), "dataset": subject.dataset}
    # Diagnostics change no value that is logged, so that what is looked into makes no other identity.
    settings = flattened(recipe.model_copy(update={"diagnostics": DiagnosticsSettings()})) if recipe else {}
    parameters = who | {name: _text(value) for name, (value, keyed) in settings.items() if keyed and name != "name"}
    parameters |= _digests(report, group)
    refs = {result.task.ref for result in group}
    own, fresh = ({row: result for row, result in some.items() if result.task.ref in refs} for some in (found, again))
    last = max((result for result in done if result.task.ref in report.curves), key=lambda r: r.task.subject.epoch, default=None)
    curve, measured = _curve(last, report, live), [*_measured(own, group), *_measured(fresh, group, "recheck/")]
    protocols = {f"edm2.protocol.{row.metric}": row.protocol for row in own}
    tags = {f"edm2.setting.{name}": _text(value) for name, (value, keyed) in settings.items() if not keyed} | protocols
    tags |= {"edm2.run": run, "edm2.store": report.store, "edm2.report": f"{report.store}/runs/{run}/report.html"}
    tags |= {"edm2.trajectory": trajectory.key, "edm2.code_version": ", ".join(distinct(done, "code_version"))}
    return Tracked(
        key_of("tracked", 1, parameters, {"store": report.store, "trajectory": trajectory.key, "versions": _versions(group)}),
        training_title(name, subject.seed),
        parameters,
        tags,
        (*curve, *measured),
        _data(report, report.snapshot(group[0])),
        [_reference(report, result) for result in done],
        tuple(result.outcome.state for result in group if result.manifest is None),
    )


def _versions(group: list[Result]) -> str:
    """What points are made by: points of different versions are no one curve."""
    made = {
        stage: {result.task.version for result in group if result.task.stage == stage} or {STAGES[stage].version}
        for stage in ("sample", "metrics", "probe")
    }
    return " ".join(f"{stage} {', '.join(map(str, sorted(versions)))}" for stage, versions in made.items())


def _text(value: Any) -> str:
    if isinstance(value, str):
        return shown(value)
    return json.dumps(value)


def _curve(last: Result | None, report: Report, live: Curve) -> Iterator[Point]:
    """Loss and learning rate at the end of every epoch: of the latest snapshot's curve, then of what its training has said since."""
    stored, time = [], _made(last) if last else 0.0
    for row in reversed(report.curves[last.task.ref] if last else []):
        stored.append({"time": time, **row})
        time -= float(row.get("seconds") or 0.0)
    steps = {row.get("step") for row in stored}
    for epoch, row in epoch_means([*stored, *(row for row in live if row["step"] not in steps)]):
        yield from (Point(metric, epoch, row[metric], row["time"]) for metric in ("loss", "lr") if metric in row)


def epoch_means(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, float]]]:
    """The curve thinned to a row an epoch, with the mean loss of its steps; an epoch whose beginning is not there is left out."""
    begin: int | None = None  # the step that the epoch began after; none: not known
    before, weight, total = 0, 0, 0.0
    for row in sorted((row for row in lines if row.get("step") is not None and row.get("loss") is not None), key=lambda row: row["step"]):
        epoch, step = float(row["epoch"]), int(row["step"])
        if begin is None and epoch <= 1:
            begin = 0
        weight, total, before = weight + step - before, total + (step - before) * float(row["loss"]), step
        if epoch.is_integer():
            if begin is not None and math.isfinite(total):
                yield (
                    int(epoch),
                    {"loss": total / weight, **{name: float(row[name]) for name in ("lr", "time") if row.get(name) is not None}},
                )
            begin, weight, total = step, 0, 0.0


def _digests(report: Report, group: list[Result]) -> dict[str, str]:
    """What the user brought that metrics depend on: weights of extractors, imported references."""
    found = {}
    for result in group:
        for kind in ("extractor", "reference"):
            brought = report.input(result, kind)
            if brought and (digest := brought.task.settings.get("digest")):
                found[f"digest.{kind}.{_extractor(report, result)}"] = str(digest)
    return found


def _extractor(report: Report, result: Result) -> str:
    extractor = report.input(result, "extractor")
    return str(extractor.task.settings["extractor"]) if extractor else ""


def _set(result: Result) -> tuple[Any, ...]:
    """Results that differ from one another in the draw alone have the same."""
    subject = result.task.subject
    return result.task.stage, result.task.inputs.get("extractor"), subject.epoch, subject.ema, subject.recheck


def _measured(found: Mapping[Row, Result], group: list[Result], prefix: str = "") -> Iterator[Point]:
    """The values at every epoch at which all draws are there: their mean, and what standard error it has."""
    undone = {_set(result) for result in group if result.manifest is None}
    emas = {metric: {row.ema for row in found if row.metric == metric} for metric in {row.metric for row in found}}
    sets: dict[tuple[str, int, str | None], list[tuple[Row, Result]]] = {}
    for row, result in found.items():
        if row.value is not None and row.epoch is not None:
            sets.setdefault((row.metric, row.epoch, row.ema), []).append((row, result))
    for (metric, epoch, ema), members in sets.items():
        if any(_set(result) in undone for _, result in members):
            continue
        name = f"{prefix}{metric}" + (f"/ema {ema}" if len(emas[metric]) > 1 else "")
        time = max(_made(result) for _, result in members)
        yield Point(name, epoch, fmean(row.value or 0.0 for row, _ in members), time)
        errors = [row.error for row, _ in members]
        if all(error is not None for error in errors):
            error = math.hypot(*(error or 0.0 for error in errors)) / len(errors)
            yield Point(f"{name}/standard error", epoch, error, time)


def _made(result: Result) -> float:
    made = result.provenance
    return float(made.get("started") or 0.0) + float(made.get("seconds") or 0.0)


def _data(report: Report, snapshot: Result | None) -> Data | None:
    data = report.input(snapshot, "data") if snapshot else None
    if data is None or data.manifest is None:
        return None
    manifest = data.manifest
    digest = hashlib.sha256(manifest.dumps()).hexdigest()
    return Data(data.task.subject.dataset, digest, f"{report.store}/{manifest.ref.folder}/{manifest.attempt}")


def _reference(report: Report, result: Result) -> dict[str, Any]:
    """Where a result is, and the digests that prove it."""
    manifest = result.manifest
    if manifest is None:
        return {}
    return {
        "title": manifest.title,
        "result": str(manifest.ref),
        "epoch": result.task.subject.epoch if result.task.subject.recipe else None,
        "location": f"{report.store}/{manifest.ref.folder}/{manifest.attempt}",
        "manifest_sha256": hashlib.sha256(manifest.dumps()).hexdigest(),
        "files": {name: {"sha256": file.sha256, "bytes": file.size} for name, file in sorted(manifest.files.items())},
    }
