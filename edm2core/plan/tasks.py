"""An experiment as a DAG of tasks whose keys are known before anything runs. Pure: no disk, no network, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from edm2core.addresses import redacted, shown
from edm2core.config.fields import Settings
from edm2core.config.settings import (
    CalibrationSettings,
    CheckpointSettings,
    ProbeSettings,
    Recipe,
    SampleSettings,
    StartSettings,
    TrajectorySettings,
)
from edm2core.metrics.names import Metric, in_words
from edm2core.plan.experiment import Experiment
from edm2core.plan.keys import Key, key_of, keyed
from edm2core.plan.manifest import Ref
from edm2core.plan.stages import STAGES
from edm2core.plan.subject import Subject
from edm2core.plan.versions import version_of
from edm2core.registry import EXTRACTORS, WEIGHTS

PIXEL_PROBE = {"t": (1,), "blocks": ("pixels",), "ema": "fixed", "features": None, "knn": 0, "few_shot": ()}


@dataclass(frozen=True)
class Task:
    """A node of the DAG: one result of one stage."""

    stage: str
    version: int
    settings: dict[str, Any]  # all that the stage needs; what is not keyed says how, not what
    inputs: dict[str, Ref]
    key: Key
    title: str
    subject: Subject = field(default_factory=Subject)  # whose result it is
    after: tuple[Ref, ...] = ()  # must be done before, though nothing of it is read: a trajectory's earlier snapshot
    wanted: tuple[int, ...] = ()  # snapshot: all epochs that the plan wants of this trajectory
    accept_code: bool = False  # snapshot: training may go on from a state that other science made
    short: str = ""  # what titles call its recipe; of a snapshot in a sweep, the training that several recipes share
    address: str = field(default="", repr=False)  # the whole of settings["source"], user and token included: it never leaves this process

    @property
    def ref(self) -> Ref:
        return Ref(self.stage, self.key)

    @property
    def whose(self) -> str:
        """The training that it is of, as titles begin: E · seed 0."""
        return training_title(self.short or self.subject.recipe, self.subject.seed)

    @property
    def needs(self) -> tuple[Ref, ...]:
        return (*self.inputs.values(), *self.after)

    def to_json(self) -> dict[str, Any]:
        """The task as others get it: without `address`."""
        refs = {"inputs": {n: str(r) for n, r in self.inputs.items()}, "after": [str(r) for r in self.after]}
        values = {**vars(self), "subject": self.subject.to_json(), "wanted": list(self.wanted), **refs}
        del values["address"]
        return {name: value for name, value in values.items() if value or name not in ("accept_code", "short")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        changed = {
            "inputs": {n: Ref.parse(r) for n, r in values["inputs"].items()},
            "after": tuple(Ref.parse(r) for r in values.get("after", ())),
            "wanted": tuple(values.get("wanted", ())),
            "subject": Subject.parse(values.get("subject", {})),
        }
        return cls(**{**values, **changed})


def training_title(name: str, seed: int) -> str:
    """How titles begin that are of a training."""
    return f"{name} · seed {seed}"


def snapshot_title(whose: str, epoch: int) -> str:
    return f"{whose} · train to epoch {epoch}"


def trajectory_ref(task: Task) -> Ref:
    """The address of the training that a snapshot task looks at: the same for all its epochs."""
    settings = TrajectorySettings.among(task.settings)
    inputs = {name: ref.key for name, ref in task.inputs.items()}  # its data, and what it started from if it did not begin anew
    return Ref("trajectory", key_of("trajectory", task.version, keyed(settings), inputs))


def snapshot_ref(trajectory: Ref, epoch: int) -> Ref:
    """The address of a trajectory's snapshot after `epoch` completed epochs; the trajectory's key holds the version of its numbers."""
    return Ref("snapshot", key_of("snapshot", 1, {"epoch": epoch}, {"trajectory": trajectory.key}))


def average_ref(trajectory: Ref, epoch: int) -> Ref:
    """The address of a trajectory's power-function averages as stored after `epoch` completed epochs, for mixing others."""
    return Ref("average", key_of("average", 1, {"epoch": epoch}, {"trajectory": trajectory.key}))


def own_key(task: Task) -> Key:
    """The key that a task's own record makes: its stage, the version that it records, its settings and its inputs.

    Raises ValueError, TypeError or KeyError where the settings are none of its stage.
    """
    if task.stage == "snapshot":
        return snapshot_ref(trajectory_ref(task), task.settings["epoch"]).key
    settings = task.settings
    stage = STAGES.get(task.stage)
    model = stage.settings if stage and settings.keys() != {"split"} else None  # our own reference has no settings but that
    fields = model.model_fields if model else {}
    values = {name: value for name, value in settings.items() if name not in fields and name not in ("source", "digest")}
    if model:
        read = model.model_validate({name: value for name, value in settings.items() if name in fields})
        values |= keyed(read.model_copy(update={"digest": None}) if "digest" in fields else read)
    keys = {name: ref.key for name, ref in task.inputs.items()}
    brought = settings.get("digest") or (f"builtin:{settings['format']}" if task.stage == "prepare" else "")
    return key_of(task.stage, task.version, values, keys | ({"source": brought} if brought else {}))


def unverified(tasks: Iterable[Task]) -> list[Task]:
    """The tasks whose key is not the one that their own record makes: what they say they are or need is not to be trusted.

    It needs nothing but the tasks, so it holds for the plans of every earlier version too: each task records the version of its numbers.
    Titles, subjects, and what is in no key (how work is done, which epochs are wanted) are not verified by it.
    """
    return [task for task in tasks if not _verifies(task)]


def _verifies(task: Task) -> bool:
    try:
        return task.key == own_key(task) and all(STAGES[ref.stage].read_as == name for name, ref in task.inputs.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def tasks_of(experiment: Experiment, digests: Mapping[str, str]) -> list[Task]:
    """All tasks of an experiment, each after what it needs, each result once.

    `digests` names what the user brought by content: `data:<recipe name>` for every recipe's source (and `revised:<recipe name>` where
    the first version of the reader gave, or may have given, other images of it), `start:<recipe name>` for the
    checkpoint that a recipe starts from, `reference:<recipe name>` for its imported statistics, `inception` and `dinov2` for the weights of
    extractors; metrics without theirs are left out.
    """
    tasks: dict[Ref, Task] = {}

    def add(task: Task) -> Task:
        name = task.subject.recipe
        return tasks.setdefault(task.ref, replace(task, short=short[name]) if name and not task.short else task)

    short = _short_names(experiment)
    for recipe in experiment.recipes:
        data = add(_prepare(recipe, digests[f"data:{recipe.name}"], f"revised:{recipe.name}" in digests))
        compared = []
        measurable = tuple(m for m in experiment.metrics[recipe.name] if m.extractor not in WEIGHTS or WEIGHTS[m.extractor] in digests)
        for metrics in _by_extractor(measurable):
            extractor = add(_extractor(metrics[0].extractor, data, experiment, digests))
            compared.append((metrics, extractor, add(_reference(recipe, metrics[0].extractor, data, extractor, digests))))
        drawn = _drawn(experiment, recipe, measured=bool(compared))
        if experiment.probe:
            add(_pixel_probe(recipe, data))
        inputs = {"data": data.ref}
        if recipe.start:
            inputs["start"] = add(start_task(recipe, recipe.start, digests[f"start:{recipe.name}"])).ref
        for seed in experiment.seeds:
            before: tuple[Ref, ...] = ()
            for epoch in experiment.epochs[recipe.name]:
                who = training_title(short[recipe.name], seed)
                swept = experiment.swept.get(recipe.name)
                subject = Subject(recipe.dataset, recipe.name, seed, epoch, swept)
                training = short[swept.training if swept else recipe.name]
                snapshot = add(_snapshot(recipe, inputs, before, experiment.epochs[recipe.name], training, subject))
                before = (snapshot.ref,)
                at = f"at epoch {epoch}"
                emas = [*(drawn.sample.ema if drawn else ())]
                emas += [recipe.probe.ema] * experiment.probe + [recipe.diagnosed_ema] * experiment.diagnostics
                averaged = {
                    ema: add(ema_task(snapshot.ref, float(ema), f"{who} · EMA {ema} {at}", subject)) if recipe.is_mixed(ema) else snapshot
                    for ema in emas
                }
                for samples in _samples(drawn, averaged, who, at, subject) if drawn else ():
                    add(samples)
                    for metrics, extractor, reference in compared:
                        extra = which(recipe, samples.subject.ema, samples.subject.draw or 0)
                        add(_metrics(metrics, samples, data, reference, extractor, f"{who} · {in_words(metrics)} {at}{extra}"))
                if experiment.probe:
                    add(_probe(recipe, averaged[recipe.probe.ema], data, f"{who} · probe {at}", subject))
                if experiment.diagnostics:
                    add(_diagnostics(recipe, averaged[recipe.diagnosed_ema], data, f"{who} · diagnostics {at}", subject))
    return list(tasks.values())


def _drawn(experiment: Experiment, recipe: Recipe, measured: bool) -> Recipe | None:
    """The recipe by which samples are drawn: fewer where nothing is measured, and none where none were asked for either."""
    if measured or recipe.name not in experiment.shown:
        return recipe if measured else None
    return recipe.model_copy(update={"sample": recipe.sample.model_copy(update={"count": experiment.shown[recipe.name]})})


def _by_extractor(metrics: tuple[Metric, ...]) -> list[tuple[Metric, ...]]:
    """The metrics that one pass of an extractor gives, for each extractor."""
    return [tuple(m for m in metrics if m.extractor == extractor) for extractor in dict.fromkeys(m.extractor for m in metrics)]


def _task(stage: str, settings: Settings | dict[str, Any], inputs: dict[str, Ref], title: str, subject: Subject, **more: Any) -> Task:
    """A task by its settings, with `more` that is in no section: which draw, and what the user brought by path and digest."""
    values = (settings.model_dump(mode="json") if isinstance(settings, Settings) else settings) | more
    task = Task(stage, version_of(stage, values), values, inputs, "", title, subject)
    return replace(task, key=own_key(task))


def _prepare(recipe: Recipe, digest: str, revised: bool) -> Task:
    source, known = recipe.data.source or "", None if digest == f"builtin:{recipe.data.format}" else digest
    settings = recipe.data.model_copy(update={"source": shown(source) or None})
    more: dict[str, Any] = {"digest": known} | ({"revised": True} if revised else {})
    task = _task("prepare", settings, {}, f"{recipe.dataset} · prepare data", Subject(recipe.dataset), **more)
    return replace(task, address=source)


def start_task(recipe: Recipe, start: StartSettings, digest: str) -> Task:
    """The task that reads a checkpoint, named by content, for the recipe that starts from it."""
    settings = CheckpointSettings(network=recipe.network, diffusion=recipe.diffusion, epoch=start.completed)
    name = start.checkpoint.rpartition("/")[2]
    title, subject = f"{recipe.name} · read {name}", Subject(recipe.dataset)
    return _task("start", settings, {}, title, subject, source=start.checkpoint, digest=digest)


def _snapshot(
    recipe: Recipe, inputs: dict[str, Ref], after: tuple[Ref, ...], wanted: tuple[int, ...], short: str, subject: Subject
) -> Task:
    trajectory = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=subject.seed)
    settings = {**trajectory.model_dump(mode="json"), "epoch": subject.epoch}
    title = snapshot_title(training_title(short, subject.seed), subject.epoch)
    task = Task("snapshot", version_of("snapshot", settings), settings, inputs, "", title, subject, after, wanted, short=short)
    return replace(task, key=own_key(task))


def ema_task(snapshot: Ref, sigma_rel: float, title: str, subject: Subject, force: bool = False) -> Task:
    """The task that mixes an average of this relative width, at a snapshot's epoch, from stored ones."""
    settings = {"sigma_rel": sigma_rel} | ({"force": True} if force else {})
    return _task("ema", settings, {"snapshot": snapshot}, title, replace(subject, ema=f"{sigma_rel:.3f}"))


def calibration_task(settings: CalibrationSettings, inputs: dict[str, Ref], dataset: str, source: str = "", digest: str = "") -> Task:
    """The task that holds the `extractor` and the `reference` among the inputs to what is known of the `data`.

    `source` and `digest` are of the file or folder with what others have; a model's images may be a result of `samples` instead.
    """
    what = {"statistics": f"statistics of {settings.name}", "test": "the test images", "images": settings.name}[settings.against]
    title, subject = f"{dataset} · calibration by {what}", Subject(dataset)
    return _task("calibration", settings, inputs, title, subject, source=source, digest=digest)


def _samples(recipe: Recipe, averaged: dict[str, Task], who: str, at: str, subject: Subject) -> list[Task]:
    tasks = []
    for ema in recipe.sample.ema:
        for draw in range(recipe.sample.draws):
            one = SampleSettings.model_validate({**recipe.sample.model_dump(), "ema": (ema,), "draws": 1})
            title = f"{who} · {one.count} samples {at}{which(recipe, ema, draw)}"
            tasks.append(_sample(one, draw, averaged[ema].ref, title, replace(subject, ema=ema, draw=draw)))
    return tasks


def _sample(settings: SampleSettings, draw: int, snapshot: Ref, title: str, subject: Subject) -> Task:
    return _task("sample", settings, {"snapshot": snapshot}, title, subject, draw=draw)


def redrawn(samples: Task, measured: Task, draw: int) -> list[Task]:
    """The tasks that draw again from the same snapshot, with the seeds of draw `draw`, and measure that as `measured` does `samples`."""
    settings = SampleSettings.model_validate({name: value for name, value in samples.settings.items() if name != "draw"})
    subject, again = replace(samples.subject, draw=draw, recheck=True), f" · again, draw {draw}"
    fresh = _sample(settings, draw, samples.inputs["snapshot"], samples.title + again, subject)
    inputs = {**measured.inputs, "samples": fresh.ref}
    tasks = [fresh, _task(measured.stage, measured.settings, inputs, measured.title + again, subject)]
    return [replace(task, short=samples.short) for task in tasks]


def which(recipe: Recipe, ema: str, draw: int) -> str:
    """Average and draw, where the recipe has several."""
    return (f" · EMA {ema}" if len(recipe.sample.ema) > 1 else "") + (f" · draw {draw}" if recipe.sample.draws > 1 else "")


def _extractor(name: str, data: Task, experiment: Experiment, digests: Mapping[str, str]) -> Task:
    if name in WEIGHTS:
        digest, source = digests[WEIGHTS[name]], experiment.weights[WEIGHTS[name]]
        known = {"source": source and shown(source), "digest": digest}
        task = _task("extractor", {"extractor": name}, {}, EXTRACTORS[name].words, Subject(extractor=name), **known)
        return replace(task, address=source or "")
    whose = name if name == "digits" else f"{data.subject.dataset} · {name}"
    return _task("extractor", {"extractor": name}, {"data": data.ref}, f"{whose} · feature extractor", Subject(extractor=name))


def _reference(recipe: Recipe, name: str, data: Task, extractor: Task, digests: Mapping[str, str]) -> Task:
    inputs, subject = {"data": data.ref, "extractor": extractor.ref}, Subject(recipe.dataset)
    if recipe.reference is None or recipe.reference.extractor != name:
        return _task("reference", {"split": "train"}, inputs, f"{recipe.dataset} · reference statistics ({name})", subject)
    title, digest = f"{recipe.dataset} · imported reference ({name})", digests[f"reference:{recipe.name}"]
    asked = recipe.reference.model_copy(update={"origin": redacted(recipe.reference.origin)})
    return _task("reference", asked, inputs, title, subject, digest=digest)


def _metrics(metrics: tuple[Metric, ...], samples: Task, data: Task, reference: Task, extractor: Task, title: str) -> Task:
    inputs = {"samples": samples.ref, "data": data.ref, "reference": reference.ref, "extractor": extractor.ref}
    return _task("metrics", {"metrics": [metric.name for metric in metrics]}, inputs, title, samples.subject)


def _probe(recipe: Recipe, snapshot: Task, data: Task, title: str, subject: Subject) -> Task:
    return _task("probe", recipe.probe, {"snapshot": snapshot.ref, "data": data.ref}, title, replace(subject, ema=recipe.probe.ema))


def _diagnostics(recipe: Recipe, snapshot: Task, data: Task, title: str, subject: Subject) -> Task:
    settings = recipe.diagnostics.model_copy(update={"ema": recipe.diagnosed_ema})
    return _task("diagnostics", settings, {"snapshot": snapshot.ref, "data": data.ref}, title, subject)


def _pixel_probe(recipe: Recipe, data: Task) -> Task:
    settings = ProbeSettings.model_validate({**recipe.probe.model_dump(), **PIXEL_PROBE})
    return _task("probe", settings, {"data": data.ref}, f"{recipe.dataset} · linear classifier on raw pixels", Subject(recipe.dataset))


def _short_names(experiment: Experiment) -> dict[str, str]:
    """Recipes and trainings: cifar10/E is called E, and paper/cifar10/E paper/E, where all recipes are of one data set."""
    datasets = {recipe.dataset for recipe in experiment.recipes}
    names = [*(recipe.name for recipe in experiment.recipes), *(place.training for place in experiment.swept.values())]
    return {name: name.replace(f"{dataset}/", "", 1) if len(datasets) == 1 else name for name in names for dataset in datasets}
