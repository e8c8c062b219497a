"""An experiment as a DAG of tasks whose keys are known before anything runs. Pure: no disk, no network, no torch."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Self

from edm2core.addresses import redacted, shown
from edm2core.config.fields import Settings
from edm2core.config.settings import (
    CalibrationSettings,
    CheckpointSettings,
    GuideSettings,
    ProbeSettings,
    Recipe,
    SampleSettings,
    StartSettings,
    TrajectorySettings,
)
from edm2core.metrics.names import IMAGES, Metric, in_words
from edm2core.own_code.families import addresses
from edm2core.plan.experiment import Experiment
from edm2core.plan.keys import Key, key_of, keyed
from edm2core.plan.manifest import Ref
from edm2core.plan.stages import STAGES
from edm2core.plan.subject import Guide, Subject, guide_settings, named_by, resolved
from edm2core.plan.versions import version_of
from edm2core.registry import EXTRACTORS, WEIGHTS, own_package

PIXEL_PROBE = {"t": (1,), "blocks": ("pixels",), "ema": "fixed", "features": None, "knn": 0, "few_shot": ()}
Compared = tuple[tuple[Metric, ...], "Task", "Task"]  # metrics of one extractor, and the tasks of the extractor and the reference


@dataclass(frozen=True)
class Task:
    """A node of the DAG: one result of one stage."""

    stage: str
    version: int
    settings: dict[str, Any]  # all that the stage needs; those in no key say how work is done, not what comes out
    inputs: dict[str, Ref]
    key: Key
    title: str
    subject: Subject = field(default_factory=Subject)  # whose result it is
    after: tuple[Ref, ...] = ()  # must be done before, though nothing of it is read: a trajectory's earlier snapshot
    wanted: tuple[int, ...] = ()  # snapshot: all epochs that the plan wants of this trajectory
    code: dict[str, str] = field(default_factory=dict)  # the user's own code that it runs: package → its content, as keys hold it
    accept_code: bool = False  # of a snapshot's task: training may go on from a state that differing code trained
    short: str = ""  # what titles call its recipe; of a snapshot in a sweep, the training that several recipes share
    address: str = field(default="", repr=False)  # the whole of settings["source"], user and token included: it never leaves this process

    @property
    def ref(self) -> Ref:
        return Ref(self.stage, self.key)

    @property
    def whose(self) -> str:
        """Its training as titles begin: E · seed 0."""
        return training_title(self.short or self.subject.recipe, self.subject.seed)

    @property
    def needs(self) -> tuple[Ref, ...]:
        return (*self.inputs.values(), *self.after)

    def to_json(self) -> dict[str, Any]:
        """The task as it is stored and handed on: without `address`."""
        refs = {"inputs": {n: str(r) for n, r in self.inputs.items()}, "after": [str(r) for r in self.after]}
        values = {**vars(self), "subject": self.subject.to_json(), "wanted": list(self.wanted), **refs}
        del values["address"]
        return {name: value for name, value in values.items() if value or name not in ("accept_code", "short", "code")}

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
    """The training as titles begin: E · seed 0."""
    return f"{name} · seed {seed}"


def snapshot_title(whose: str, epoch: int) -> str:
    return f"{whose} · train to epoch {epoch}"


def trajectory_ref(task: Task) -> Ref:
    """The address of a snapshot task's training, the same for all its epochs."""
    settings = TrajectorySettings.among(task.settings)
    inputs = {name: ref.key for name, ref in task.inputs.items()}  # its data, and what it started from if it did not begin anew
    return Ref("trajectory", key_of("trajectory", task.version, keyed(settings), inputs | _code_leaves(task)))


def _code_leaves(task: Task) -> dict[str, str]:
    """The task's own code as its key holds it."""
    return {f"code:{package}": content for package, content in task.code.items()}


def snapshot_ref(trajectory: Ref, epoch: int) -> Ref:
    """The address of a trajectory's snapshot after `epoch` completed epochs; the trajectory's key holds the version of its numbers."""
    return Ref("snapshot", key_of("snapshot", 1, {"epoch": epoch}, {"trajectory": trajectory.key}))


def average_ref(trajectory: Ref, epoch: int) -> Ref:
    """The address of a trajectory's power-function averages as stored after `epoch` completed epochs, for mixing others."""
    return Ref("average", key_of("average", 1, {"epoch": epoch}, {"trajectory": trajectory.key}))


def own_key(task: Task) -> Key:
    """The key that follows from a task's own record: its stage, the version that it records, its settings and its inputs.

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
    return key_of(task.stage, task.version, values, keys | ({"source": brought} if brought else {}) | _code_leaves(task))


def unverified(tasks: Iterable[Task]) -> list[Task]:
    """The tasks whose key does not follow from their own record. What they say they are or need cannot be trusted.

    It needs nothing but the tasks, so it holds for the plans of every earlier version too: each task records the version of its numbers.
    It does not verify titles, subjects, and what is in no key: how work is done, and which epochs are wanted.
    """
    return [task for task in tasks if not _verifies(task)]


def _verifies(task: Task) -> bool:
    try:
        return task.key == own_key(task) and all(name in STAGES[ref.stage].read_as_any for name, ref in task.inputs.items())
    except (ValueError, TypeError, KeyError, AttributeError):
        return False


def tasks_of(experiment: Experiment, digests: Mapping[str, str]) -> list[Task]:
    """All tasks of an experiment, each after what it needs, each result once.

    `digests` names by content what the user brought. `data:<recipe name>` is every recipe's source, and `revised:<recipe name>` is there
    if the first version of the reader gave, or may have given, other images of it. `start:<recipe name>` is the checkpoint that a recipe
    starts from, `reference:<recipe name>` its imported statistics. `code:<package>` is the content of own code. `inception` and `dinov2`
    are the weights of extractors; metrics whose extractor lacks them are left out.
    """
    planner = _Planner(experiment, digests)
    for recipe in experiment.recipes:
        planner.add_recipe(recipe)
    return list(planner.tasks.values())


class _Planner:
    """Adds the tasks of an experiment, recipe by recipe. A task that is there already is not added again."""

    def __init__(self, experiment: Experiment, digests: Mapping[str, str]) -> None:
        self.experiment, self.digests = experiment, digests
        self.contents = {name.removeprefix("code:"): content for name, content in digests.items() if name.startswith("code:")}
        self.tasks: dict[Ref, Task] = {}
        self.trainings: dict[tuple[str, int], Ref] = {}  # each recipe's and seed's trajectory
        self.kept: dict[Ref, list[int]] = {}  # the epochs of each trajectory that the plan needs a snapshot of, ascending
        self.chains: dict[Ref, list[Task]] = {}  # the snapshots of each trajectory that are added, in the order of its epochs
        datasets = {recipe.dataset for recipe in experiment.recipes}
        names = [*(recipe.name for recipe in experiment.recipes), *(swept.training for swept in experiment.swept.values())]
        prefix = f"{next(iter(datasets))}/" if len(datasets) == 1 else ""
        self.short = {name: name.replace(prefix, "", 1) for name in names}  # cifar10/E is E, and paper/cifar10/E is paper/E
        for recipe, seed in product(experiment.recipes, experiment.seeds):
            self._keep(recipe, seed, experiment.epochs[recipe.name])
            if guide := self._guide(recipe, seed, 0, ""):
                self._keep(guide.recipe, guide.seed, (guide.epoch,) if guide.epoch else experiment.epochs[recipe.name])

    def add(self, task: Task) -> Task:
        """The task, or the one that is there already with the same key."""
        name = task.subject.recipe
        return self.tasks.setdefault(task.ref, replace(task, short=self.short[name]) if name and not task.short else task)

    def _with_own_code(self, task: Task, *recipes: Recipe) -> Task:
        """The task, whose key holds the content of the own code that its stage runs for the recipes."""
        named = (own_package(address) for recipe in recipes for family, address in addresses(recipe) if task.stage in family.stages)
        return with_code(task, {package: self.contents[package] for package in sorted(set(named))})

    def add_recipe(self, recipe: Recipe) -> None:
        experiment, name = self.experiment, recipe.name
        data = self.add(self._data(recipe))
        measurable = [m for m in experiment.metrics[name] if m.extractor not in WEIGHTS or WEIGHTS[m.extractor] in self.digests]
        compared = []
        for extractor_name in dict.fromkeys(metric.extractor for metric in measurable if metric.extractor != IMAGES):
            extractor = self._add_extractor(extractor_name, data)
            reference = self._add_reference(recipe, extractor_name, data, extractor)
            compared.append((tuple(m for m in measurable if m.extractor == extractor_name), extractor, reference))
        if experiment.probe:
            pixels = ProbeSettings.model_validate({**recipe.probe.model_dump(), **PIXEL_PROBE})
            title = f"{recipe.dataset} · linear classifier on raw pixels"
            self.add(_task("probe", pixels, {"data": data.ref}, title, Subject(recipe.dataset)))
        for seed, epoch in product(experiment.seeds, experiment.epochs[name]):
            subject = Subject(recipe.dataset, name, seed, epoch, experiment.swept.get(name))
            self._add_evaluations(recipe, data, self._add_snapshot(recipe, seed, epoch), compared, subject)

    def _training_inputs(self, recipe: Recipe) -> dict[str, Task]:
        """The tasks that a recipe's training reads: its data, and the checkpoint that it starts from. They are not added."""
        inputs = {"data": self._data(recipe)}
        if recipe.start:
            inputs["start"] = start_task(recipe, recipe.start, self.digests[f"start:{recipe.name}"])
        return inputs

    def _snapshot(self, recipe: Recipe, seed: int, epoch: int, after: tuple[Ref, ...] = (), wanted: tuple[int, ...] = ()) -> Task:
        settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=seed)
        inputs = {name: task.ref for name, task in self._training_inputs(recipe).items()}
        swept = self.experiment.swept.get(recipe.name)
        short = self.short[swept.training if swept else recipe.name]
        title, subject = snapshot_title(training_title(short, seed), epoch), Subject(recipe.dataset, recipe.name, seed, epoch, swept)
        task = _task("snapshot", settings, inputs, title, subject, epoch=epoch)
        return self._with_own_code(replace(task, after=after, wanted=wanted, short=short), recipe)

    def _keep(self, recipe: Recipe, seed: int, epochs: Iterable[int]) -> None:
        """Note that the plan needs the snapshots of a training at these epochs."""
        training = self.trainings.setdefault((recipe.name, seed), trajectory_ref(self._snapshot(recipe, seed, 1)))
        self.kept[training] = sorted({*self.kept.get(training, ()), *epochs})

    def _add_snapshot(self, recipe: Recipe, seed: int, epoch: int) -> Task:
        """The task that trains up to this epoch, added after those of the training's earlier snapshots."""
        training = self.trainings[recipe.name, seed]
        kept, chain = self.kept[training], self.chains.setdefault(training, [])
        number = bisect_left(kept, epoch)
        if len(chain) <= number:
            for task in self._training_inputs(recipe).values():
                self.add(task)
        while len(chain) <= number:
            after = (chain[-1].ref,) if chain else ()
            chain.append(self.add(self._snapshot(recipe, seed, kept[len(chain)], after, tuple(kept))))
        return chain[number]

    def _guide(self, recipe: Recipe, seed: int, epoch: int, ema: str) -> Guide | None:
        """What guides a recipe's samples from this seed, epoch and average; None if no other network does."""
        settings, experiment = guide_settings(recipe.sample), self.experiment
        if settings is None:
            return None
        return resolved(settings, named_by(settings, recipe, experiment.recipes, experiment.swept)[0], seed, epoch, ema)

    def _averaged(self, recipe: Recipe, snapshot: Task, ema: str, subject: Subject) -> Task:
        """The task whose result holds an average at a snapshot: the snapshot itself, or one that mixes the average from stored ones."""
        if not recipe.is_mixed(ema):
            return snapshot
        title = f"{training_title(self.short[recipe.name], subject.seed)} · EMA {ema} at epoch {subject.epoch}"
        return self.add(ema_task(snapshot.ref, float(ema), title, subject))

    def _add_evaluations(self, recipe: Recipe, data: Task, snapshot: Task, compared: list[Compared], subject: Subject) -> None:
        experiment, draws = self.experiment, recipe.sample.draws
        own = [metric for metric in experiment.metrics[recipe.name] if metric.extractor == IMAGES]
        drawn = bool(compared or own) or recipe.name in experiment.shown
        count = recipe.sample.count if compared or own else experiment.shown.get(recipe.name)
        who, at = training_title(self.short[recipe.name], subject.seed), f"at epoch {subject.epoch}"
        emas = [*recipe.sample.ema] * drawn + [recipe.probe.ema] * experiment.probe + [recipe.diagnosed_ema] * experiment.diagnostics
        averaged = {ema: self._averaged(recipe, snapshot, ema, subject) for ema in emas}
        for ema, draw in product(recipe.sample.ema, range(draws)) if drawn else ():
            settings = SampleSettings.model_validate({**recipe.sample.model_dump(), "count": count, "ema": (ema,), "draws": 1})
            of_draw, which_one = replace(subject, ema=ema, draw=draw), which(recipe, ema, draw)
            read, title, networks = {"snapshot": averaged[ema].ref}, f"{who} · {count} samples {at}{which_one}", [recipe]
            if guide := self._guide(recipe, subject.seed, subject.epoch, ema):
                guiding = self._add_snapshot(guide.recipe, guide.seed, guide.epoch)
                read["guide"] = self._averaged(guide.recipe, guiding, guide.ema, guiding.subject).ref
                settings = guided_by(settings, guide.ema)
                networks.append(recipe.model_copy(update={"network": guide.recipe.network}))
            samples = self.add(self._with_own_code(_task("sample", settings, read, title, of_draw, draw=draw), *networks))
            for metrics, extractor, reference in compared:
                inputs = {"samples": samples.ref, "data": data.ref, "reference": reference.ref, "extractor": extractor.ref}
                title = f"{who} · {in_words(metrics)} {at}{which_one}"
                self.add(_task("metrics", {"metrics": [metric.name for metric in metrics]}, inputs, title, of_draw))
            for metric in own:
                inputs, title = {"samples": samples.ref, "data": data.ref}, f"{who} · {metric.label} {at}{which_one}"
                settings_of = {"metrics": [metric.name]} | ({"own": dict(metric.options)} if metric.options else {})
                task = _task("metrics", settings_of, inputs, title, of_draw)
                self.add(with_code(task, {own_package(metric.name): self.contents[own_package(metric.name)]}))
        if experiment.probe:
            inputs = {"snapshot": averaged[recipe.probe.ema].ref, "data": data.ref}
            probe = _task("probe", recipe.probe, inputs, f"{who} · probe {at}", replace(subject, ema=recipe.probe.ema))
            self.add(self._with_own_code(probe, recipe))
        if experiment.diagnostics:
            inputs = {"snapshot": averaged[recipe.diagnosed_ema].ref, "data": data.ref}
            looks = recipe.diagnostics.model_copy(update={"ema": recipe.diagnosed_ema})
            self.add(self._with_own_code(_task("diagnostics", looks, inputs, f"{who} · diagnostics {at}", subject), recipe))

    def _data(self, recipe: Recipe) -> Task:
        digest, source = self.digests[f"data:{recipe.name}"], recipe.data.source or ""
        more: dict[str, Any] = {"digest": None if digest == f"builtin:{recipe.data.format}" else digest}
        more |= {"revised": True} if f"revised:{recipe.name}" in self.digests else {}
        settings = recipe.data.model_copy(update={"source": shown(source) or None})
        task = _task("prepare", settings, {}, f"{recipe.dataset} · prepare data", Subject(recipe.dataset), **more)
        return replace(self._with_own_code(task, recipe), address=source)

    def _add_extractor(self, name: str, data: Task) -> Task:
        settings, subject = {"extractor": name}, Subject(extractor=name)
        if name in WEIGHTS:
            source = self.experiment.weights[WEIGHTS[name]]
            more = {"source": source and shown(source), "digest": self.digests[WEIGHTS[name]]}
            return self.add(replace(_task("extractor", settings, {}, EXTRACTORS[name].words, subject, **more), address=source or ""))
        whose = name if name == "digits" else f"{data.subject.dataset} · {name}"
        return self.add(_task("extractor", settings, {"data": data.ref}, f"{whose} · feature extractor", subject))

    def _add_reference(self, recipe: Recipe, name: str, data: Task, extractor: Task) -> Task:
        inputs, subject = {"data": data.ref, "extractor": extractor.ref}, Subject(recipe.dataset)
        if recipe.reference is None or recipe.reference.extractor != name:
            title = f"{recipe.dataset} · reference statistics ({name})"
            return self.add(_task("reference", {"split": "train"}, inputs, title, subject))
        title, digest = f"{recipe.dataset} · imported reference ({name})", self.digests[f"reference:{recipe.name}"]
        settings = recipe.reference.model_copy(update={"origin": redacted(recipe.reference.origin)})
        return self.add(_task("reference", settings, inputs, title, subject, digest=digest))


def _task(stage: str, settings: Settings | dict[str, Any], inputs: dict[str, Ref], title: str, subject: Subject, **more: Any) -> Task:
    """A task by its settings. `more` are settings of no section: the draw, and the path and digest of what the user brought."""
    values = (settings.model_dump(mode="json") if isinstance(settings, Settings) else settings) | more
    task = Task(stage, version_of(stage, values), values, inputs, "", title, subject)
    return replace(task, key=own_key(task))


def with_code(task: Task, code: Mapping[str, str]) -> Task:
    """The task with the own code that it runs, and the key that follows from it."""
    own = replace(task, code=dict(code))
    return replace(own, key=own_key(own)) if code else task


def start_task(recipe: Recipe, start: StartSettings, digest: str) -> Task:
    """The task that reads a checkpoint, named by content, for the recipe that starts from it."""
    settings = CheckpointSettings(network=recipe.network, diffusion=recipe.diffusion, epoch=start.completed)
    title = f"{recipe.name} · read {start.checkpoint.rpartition('/')[2]}"
    return _task("start", settings, {}, title, Subject(recipe.dataset), source=start.checkpoint, digest=digest)


def ema_task(snapshot: Ref, sigma_rel: float, title: str, subject: Subject, force: bool = False) -> Task:
    """The task that mixes an average of this relative width, at a snapshot's epoch, from stored ones."""
    settings = {"sigma_rel": sigma_rel} | ({"force": True} if force else {})
    return _task("ema", settings, {"snapshot": snapshot}, title, replace(subject, ema=f"{sigma_rel:.3f}"))


def calibration_task(settings: CalibrationSettings, inputs: dict[str, Ref], dataset: str, source: str = "", digest: str = "") -> Task:
    """The task that compares the `extractor` and the `reference` among the inputs with what is known of the `data`.

    `source` and `digest` are of the file or folder with what others have. A model's images may be a result of `samples` instead.
    """
    by = {"statistics": f"statistics of {settings.name}", "test": "the test images", "images": settings.name}[settings.against]
    title, subject = f"{dataset} · calibration by {by}", Subject(dataset)
    return _task("calibration", settings, inputs, title, subject, source=source, digest=digest)


def guided_by(settings: SampleSettings, ema: str) -> SampleSettings:
    """The settings of a task whose input `guide` says which snapshot guides: of the guide they hold the average alone, as its key does."""
    assert settings.guidance is not None  # noqa: S101
    guidance = settings.guidance.model_copy(update={"guide": GuideSettings(ema=ema)})
    return settings.model_copy(update={"guidance": guidance})


def redrawn(samples: Task, measured: Task, draw: int) -> list[Task]:
    """The tasks that draw again from the same snapshot, with the seeds of draw `draw`, and measure that as `measured` does `samples`."""
    settings = SampleSettings.model_validate({name: value for name, value in samples.settings.items() if name != "draw"})
    subject, again = replace(samples.subject, draw=draw, recheck=True), f" · again, draw {draw}"
    fresh = with_code(_task("sample", settings, samples.inputs, samples.title + again, subject, draw=draw), samples.code)
    inputs = {**measured.inputs, "samples": fresh.ref}
    tasks = [fresh, with_code(_task(measured.stage, measured.settings, inputs, measured.title + again, subject), measured.code)]
    return [replace(task, short=samples.short) for task in tasks]


def which(recipe: Recipe, ema: str, draw: int) -> str:
    """The guidance if there is any; the average and the draw, each if the recipe has several."""
    guidance, guide = recipe.sample.guidance, guide_settings(recipe.sample)
    guided = (f" · guided by {guidance.weight:g}" + (f" ({guide.words})" if guide else "")) if guidance else ""
    several = (f" · EMA {ema}" if len(recipe.sample.ema) > 1 else "") + (f" · draw {draw}" if recipe.sample.draws > 1 else "")
    return guided + several
