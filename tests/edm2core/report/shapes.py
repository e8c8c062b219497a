"""Experiments of every shape that a page can meet, each a store filled without training anything."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edm2core.config.settings import CalibrationSettings
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task, calibration_task
from edm2core.report import Outcome, Report, RunInfo
from edm2core.report.recheck import rechecks
from edm2core.store.results import commit
from tests.edm2core.report.conftest import DEMO, Fake, by_several_sciences

FOLDER = TemporaryDirectory(prefix="edm2-shapes-")  # removed when the session ends
UNREADABLE = "caf\udce9 \ud800"  # a name that is not UTF-8 as Python reads it, and one that no file system has
HOSTILE = f"</script><img src=x onerror=alert(1)>\"'&{{{{ 7*7 }}}} {UNREADABLE}"
TWO = {"digits/C, digits/E, digits/G": "digits/C, digits/G", "[20, 40, 60]": "[20, 60]"}
ONE = {"digits/C, digits/E, digits/G": "digits/G", "[20, 40, 60]": "[20]"}
UNPROBED = {"probe: {t: [4], blocks: [out_3], epochs: 15, batch: 512, lr: 4.0e-3}": "probe: false"}
CONDITIONAL = {"{training.epochs: 60}": "{training.epochs: 60, network.classes: 10, training.label_dropout: 0.1}"}
SAMPLERS = "sweep: {sample.solver: [heun, dpmpp_2m], sample.steps: [9, 18]}\n"
GUIDANCE = "sweep: {sample.guidance.weight: [1, 2], sample.guidance.interval: [null, [0.2, 5]]}\n"
SAMPLED = {
    "prepare": {"classes": [HOSTILE, *map(str, range(9))]},
    "sample": {"drawing": {"images": 2000, "seconds": 9.0, "joules": 30.0}},
    "metrics": {"standard_errors": {"fd_digits": 0.2}, "left_out": {"fd_digits": [2.9, 3.0, 3.1]}},
}


def _nothing(_: Task) -> bool:
    return False


def _same(fake: Fake, info: RunInfo) -> RunInfo:
    return info


@dataclass(frozen=True)
class Shape:
    """The demo with parts of its text replaced and lines added; `without` says which results are missing, `after` what happened then."""

    changes: Mapping[str, str] = field(default_factory=lambda: TWO)
    add: str = ""
    without: Callable[[Task], bool] = _nothing
    metadata: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    after: Callable[[Fake, RunInfo], RunInfo] = _same
    limits: Mapping[str, int] = field(default_factory=dict)  # of how much a page holds, by their names in the code


@dataclass(frozen=True)
class Made:
    """A shape in its store."""

    fake: Fake
    info: RunInfo

    @cached_property
    def report(self) -> Report:
        return self.fake.report(self.info)


@cache
def made(name: str) -> Made:
    """The shape of that name, made once in a session; not to be changed."""
    shape, text = SHAPES[name], DEMO
    for old, new in shape.changes.items():
        assert old in text, (name, old)
        text = text.replace(old, new)
    fake = Fake(Path(FOLDER.name) / str(list(SHAPES).index(name)), text + shape.add, dict(shape.metadata)).make(shape.without)
    return Made(fake, shape.after(fake, RunInfo(experiment=fake.text, command="edm2 run experiment.yaml", notes="# Why\n\n*Because.*")))


def _late(task: Task) -> bool:
    return task.subject.epoch == 60


def _late_of_g(task: Task) -> bool:
    return _late(task) and task.subject.recipe == "digits/G"


def _late_of_seed_1(task: Task) -> bool:
    return _late(task) and task.subject.seed == 1 and task.stage in ("metrics", "probe")


def _samples_of_g(task: Task) -> bool:
    return task.subject.recipe == "digits/G" and task.stage in ("sample", "metrics")


def _outcomes(fake: Fake, info: RunInfo, **states: Outcome) -> RunInfo:
    results = fake.report().results
    missing = [task for task in fake.tasks if results[task.ref].manifest is None]
    outcomes = {task.ref: states.get(task.stage, states["other"]) for task in missing}
    return RunInfo(outcomes, info.experiment, info.command, info.started, info.finished, info.running, info.absent, info.notes)


def _failed(fake: Fake, info: RunInfo) -> RunInfo:
    return _outcomes(fake, info, sample=Outcome("failed", "No space left.", "runs/x/logs/7"), other=Outcome("skipped"))


def _stopped(fake: Fake, info: RunInfo) -> RunInfo:
    found = _outcomes(fake, info, snapshot=Outcome("interrupted"), other=Outcome("skipped"))
    return replace(found, started="2025-03-01T10:15:00+00:00", finished="2025-03-01T11:15:00+00:00")


def _running(fake: Fake, info: RunInfo) -> RunInfo:
    found = _outcomes(fake, info, snapshot=Outcome("running"), other=Outcome("waiting"))
    return RunInfo(found.outcomes, found.experiment, found.command, "2025-03-01T10:15:00+00:00", "", True, {"fid": "No weights."}, "")


def _rechecked(fake: Fake, info: RunInfo) -> RunInfo:
    again = rechecks(fake.report(), 2)
    fake.tasks = [*fake.tasks, *again]
    for task in again:
        fake.commit(task)
    return info


def _measured(task: Task) -> bool:
    return task.stage == "metrics"


def _better_with_steps(fake: Fake, info: RunInfo) -> RunInfo:
    for task in filter(_measured, fake.tasks):
        assert task.subject.sweep
        fake.commit(task, {"values": {"fd_digits": 72 / task.subject.sweep.at["sample.steps"]}})
    return info


def _calibrated(fake: Fake, info: RunInfo) -> RunInfo:
    data, extractor, reference = (fake.find(stage).ref for stage in ("prepare", "extractor", "reference"))
    found = {"label": "FD", "n": 360, "distance": 3.0, "error": 0.1}
    for values in ({"against": "test"}, {"against": "images", "name": "a model", "expected": 1.0, "tolerance": 0.5}):
        task = calibration_task(
            CalibrationSettings.model_validate(values), {"data": data, "extractor": extractor, "reference": reference}, "digits"
        )
        inputs = {name: str(ref) for name, ref in task.inputs.items()}
        commit(fake.store, Manifest(task.stage, 1, task.key, task.title, task.settings, inputs, {}, "a", {}, found, {}))
    return info


def _damaged(fake: Fake, info: RunInfo) -> RunInfo:
    fake.store.write(fake.find("metrics", epoch=60).ref.manifest, b'{"stage": ')
    sample = fake.find("sample", epoch=60)
    fake.store.write(fake.report().results[sample.ref].manifest.path("grid.png"), b"no picture")  # type: ignore[union-attr]
    return info


def _only(stage: str) -> Callable[[Fake, RunInfo], RunInfo]:
    """As `edm2 run --only` plans it."""

    def keep(fake: Fake, info: RunInfo) -> RunInfo:
        fake.tasks = [task for task in fake.tasks if task.stage == stage]
        return info

    return keep


def _renamed(fake: Fake, info: RunInfo) -> RunInfo:
    """Everything that a person or a file system may name is named badly, and all is made again."""
    from dataclasses import replace

    fake.name = fake.text = HOSTILE
    fake.tasks = [
        replace(
            t,
            title=f"{HOSTILE} {t.title}",
            subject=replace(t.subject, recipe=f"{HOSTILE} {t.subject.recipe[-1]}") if t.subject.recipe else t.subject,
        )
        for t in fake.tasks
    ]
    failed = next(task for task in fake.tasks if task.stage == "probe" and task.subject.epoch == 60)
    fake.classes = [HOSTILE, "two", UNREADABLE]
    fake.metadata = {
        "metrics": {"values": {HOSTILE: 3.0, "fd_digits": math.nan}},
        "prepare": {"counts": {"train": 1437, "test": 360}, "warning": HOSTILE},
    }
    for task in fake.tasks:
        if task.ref != failed.ref:
            fake.commit(task)
    return RunInfo({failed.ref: Outcome("failed", HOSTILE, HOSTILE)}, HOSTILE, HOSTILE, absent={HOSTILE: HOSTILE}, notes=HOSTILE)


SHAPES = {
    "one seed": Shape(),
    "one recipe, one epoch": Shape(ONE),
    "several seeds": Shape({**TWO, "seeds: [0]": "seeds: [0, 1, 2]"}),
    "several seeds of one recipe": Shape({**ONE, "seeds: [0]": "seeds: [0, 1]"}),
    "many recipes, seeds and epochs": Shape({"seeds: [0]": "seeds: [0, 1, 2, 3]"}),
    "draws": Shape({**TWO, "steps: 18": "steps: 18, draws: 3"}),
    "draws of several seeds": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]", "steps: 18": "steps: 18, draws: 2"}),
    "draws of an experiment that was stopped": Shape(
        {"digits/C, digits/E, digits/G": "digits/C, digits/G", "steps: 18": "steps: 18, draws: 3"}, without=_late_of_g, after=_stopped
    ),
    "averages": Shape({**TWO, "steps: 18": "steps: 18, ema: [fixed, 0.05, 0.075, 0.1]"}),
    "averages of several seeds": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]", "steps: 18": "steps: 18, ema: [fixed, 0.05, 0.1]"}),
    "averages without the fixed": Shape(
        {**TWO, "steps: 18": "steps: 18, ema: [0.05, 0.1]", "blocks: [out_3]": "blocks: [out_3], ema: 0.05"}
    ),
    "draws of averages": Shape({**TWO, "steps: 18": "steps: 18, draws: 2, ema: [fixed, 0.05, 0.1]"}),
    "a sweep of trainings": Shape(TWO, "sweep: {training.lr: [1.0e-2, 5.0e-3]}\n"),
    "a sweep of sampling": Shape({**TWO, ", steps: 18": ""}, "sweep: {sample.steps: [9, 18]}\n"),
    "a sweep of several seeds": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]"}, "sweep: {training.lr: [1.0e-2, 5.0e-3]}\n"),
    "a sweep of words": Shape(ONE, "sweep: {sample.precision: [fp32, bf16]}\n"),
    "a sweep of words of several seeds": Shape({**ONE, "seeds: [0]": "seeds: [0, 1]"}, "sweep: {sample.precision: [fp32, bf16]}\n"),
    "samplers alone, drawn again": Shape({**ONE, **UNPROBED, ", steps: 18": ""}, SAMPLERS, metadata=SAMPLED, after=_rechecked),
    "no cheaper sampler is enough": Shape({**ONE, ", steps: 18": ""}, SAMPLERS, without=_measured, after=_better_with_steps),
    "samplers of several recipes and epochs": Shape({**TWO, ", steps: 18": ""}, SAMPLERS),
    "guidance alone, drawn again": Shape({**ONE, **UNPROBED, **CONDITIONAL}, GUIDANCE, metadata=SAMPLED, after=_rechecked),
    "guidance of several recipes and epochs": Shape({**TWO, **CONDITIONAL}, GUIDANCE),
    "probe grid": Shape({**TWO, "t: [4], blocks: [out_3]": "t: [3, 4], blocks: [out_1, out_2]"}),
    "inside": Shape(TWO, "diagnostics: true\n"),
    "all kinds of metrics": Shape({**TWO, "[fd]": "[fd, kid, precision, memorisation]"}),
    "rechecked": Shape(after=_rechecked),
    "several seeds, rechecked": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]"}, after=_rechecked),
    "probes of several seeds": Shape(metadata={"probe": {"deviations": {"probe_accuracy": 0.3}}}),
    "more curves than are drawn at once": Shape(limits={"edm2core.report.html.MOST_CURVES": 1}),
    "more recipes than a drawing holds": Shape(limits={"edm2core.report.verdict_drawing.MOST": 1}),
    "more values than a page holds": Shape(limits={"edm2core.report.html.MOST_ROWS": 5}),
    "more pictures than a page holds": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]"}, limits={"edm2core.report.samples.BUDGET": 15_000}),
    "pictures too large for a page": Shape(limits={"edm2core.report.samples.BUDGET": 0}),
    "a sweep of sampling of several seeds": Shape(
        {**ONE, ", steps: 18": "", "seeds: [0]": "seeds: [0, 1]"}, "sweep: {sample.steps: [9, 18]}\n"
    ),
    "as published": Shape(
        {
            "digits/C, digits/E, digits/G": "cifar10/C, tinyimagenet/C",
            "[fd]": "[fid]",
            "2000": "50000",
            "[20, 40, 60]": "[1000, 1600]",
            "training.epochs: 60": "training.epochs: 1600",
        },
        "inception_weights: weights.pth\n",
    ),
    "calibrated": Shape(after=_calibrated),
    "of several sciences": Shape(without=lambda task: True, after=lambda fake, info: (by_several_sciences(fake, "digits/G"), info)[1]),
    "many metrics of several draws": Shape(
        {**TWO, "[fd]": "[fd, precision, recall, density, coverage]", "steps: 18": "steps: 18, draws: 2"}
    ),
    "two data sets, beside published values": Shape(
        {"digits/C, digits/E, digits/G": "cifar100/C, cifar100/E, cifar10/C", "[fd]": "[fid]", "2000": "3000"},
        "inception_weights: weights.pth\n",
    ),
    "no metrics": Shape({**TWO, "[fd]": "[]"}),
    "no probe": Shape({**TWO, **UNPROBED}),
    "failed": Shape(without=_samples_of_g, after=_failed),
    "stopped": Shape(without=_late, after=_stopped),
    "running": Shape(without=_late, after=_running),
    "only the data": Shape(after=_only("prepare")),
    "only an extractor": Shape(
        {"digits/C, digits/E, digits/G": "cifar10/C", "[fd]": "[fid]", "2000": "3000"},
        "inception_weights: weights.pth\n",
        after=_only("extractor"),
    ),
    "never begun": Shape(without=lambda task: True),
    "nothing trained": Shape(without=lambda task: task.stage != "prepare"),
    "running, nothing measured yet": Shape(without=lambda task: True, after=_running),
    "one seed of two lacks the last epoch": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]"}, without=_late_of_seed_1),
    "one seed of two": Shape({**TWO, "seeds: [0]": "seeds: [0, 1]"}, without=lambda task: task.subject.seed == 1),
    "damaged": Shape(after=_damaged),
    "not finite": Shape(metadata={"metrics": {"values": {"fd_digits": math.nan}}, "snapshot": {"nonfinite_steps": 3}}),
    "badly named": Shape(without=lambda task: True, after=_renamed),
}
