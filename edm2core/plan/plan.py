"""A plan: an experiment's tasks and resolved recipes, and the questions that it answers of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from pydantic import ValidationError

from edm2core.config.settings import DataSettings, Recipe, ReferenceSettings
from edm2core.metrics.names import Metric, in_words, own_metrics
from edm2core.plan.experiment import Experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, tasks_of, trajectory_ref, which


@dataclass(frozen=True)
class Plan(Sequence[Task]):
    """Tasks, each after what it needs, and their recipes by name. A section of a recipe that no task uses is at its default."""

    tasks: tuple[Task, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Self:
        """The plan of these tasks. Unless they are a plan already, the recipes are put together from them."""
        if isinstance(tasks, cls):
            return tasks
        listed = tuple(tasks)
        return cls(listed, recipes_of(listed))

    @classmethod
    def parse(cls, tasks: Iterable[Mapping[str, Any]], recipes: Mapping[str, Any] | None) -> Self:
        """The plan from its stored form. An earlier version stored no recipes: they are then None or empty."""
        parsed = tuple(map(Task.from_json, tasks))
        return cls(parsed, _validated(recipes)) if recipes else cls.of(parsed)

    def stored_recipes(self) -> dict[str, Any]:
        """The recipes as JSON holds them."""
        return {name: recipe.model_dump(mode="json") for name, recipe in self.recipes.items()}

    def __getitem__(self, index: Any) -> Any:
        return self.tasks[index]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    @cached_property
    def by_ref(self) -> Mapping[Ref, Task]:
        return {task.ref: task for task in self.tasks}

    def input(self, task: Task, name: str) -> Task | None:
        """The task whose result a task reads under this name; None if the plan has none."""
        ref = task.inputs.get(name)
        return self.by_ref.get(ref) if ref else None

    def snapshot_of(self, task: Task) -> Task | None:
        """The snapshot that a result stands on: itself, or that of its samples or its mixed average. None if it stands on none."""
        if task.stage == "snapshot":
            return task
        below = self.input(task, "samples") or self.input(task, "snapshot")
        return self.snapshot_of(below) if below else None

    def guide_of(self, task: Task) -> Task | None:
        """The snapshot that guides samples: itself, or that of a mixed average. None if no other network guides them."""
        guide = self.input(task, "guide")
        return self.snapshot_of(guide) if guide else None

    def standing_on(self, tasks: Iterable[Task]) -> list[Task]:
        """The tasks and everything in the plan that they need, directly or not, in the plan's order."""
        needed = {task.ref for task in tasks}
        for task in reversed(self.tasks):  # each comes after what it needs
            if task.ref in needed:
                needed |= set(task.needs)
        return [task for task in self.tasks if task.ref in needed]

    def measured(self, task: Task) -> tuple[Metric, ...]:
        """The metrics that a task measures of samples."""
        extractor = self.input(task, "extractor")
        if task.stage != "metrics":
            return ()
        if extractor is None:
            return own_metrics(task.settings)
        return tuple(Metric(name, extractor.settings["extractor"]) for name in task.settings["metrics"])

    def what(self, task: Task) -> str:
        """What a task does, without training and epoch: train, probe, FD (digits features), 2000 samples · EMA 0.050."""
        subject = task.subject
        if not subject.recipe:
            return task.title
        words = {
            "snapshot": "train",
            "ema": f"EMA {subject.ema}",
            "sample": f"{task.settings.get('count')} samples",
            "metrics": in_words(measured) if (measured := self.measured(task)) else "",
        }.get(task.stage, task.stage)
        recipe = self.recipes.get(subject.recipe)
        several = which(recipe, subject.ema, subject.draw) if recipe and subject.draw is not None else ""
        return words + several

    def trajectories(self) -> dict[Ref, list[Task]]:
        """The tasks of each trajectory, in the plan's order. Tasks that several trajectories share are in none."""
        trajectory_of = {task.ref: trajectory_ref(task) for task in self.tasks if task.stage == "snapshot"}
        groups: dict[Ref, list[Task]] = {}
        for task in self.tasks:
            if snapshot := self.snapshot_of(task):
                groups.setdefault(trajectory_of[snapshot.ref], []).append(task)
        return groups


def plan(experiment: Experiment, digests: Mapping[str, str]) -> Plan:
    """An experiment's plan. `digests` names what the user brought by content, see `tasks_of`."""
    return Plan.of(tasks_of(experiment, digests))


def recipes_of(tasks: Iterable[Task]) -> dict[str, Recipe]:
    """The recipes by name, put together from the tasks' settings. A section that no task uses is at its default."""
    plan, sections = Plan(tuple(tasks)), dict[str, dict[str, Any]]()
    snapshots, evaluated = dict[str, Ref](), dict[Ref | None, dict[str, Any]]()
    for task in plan:
        if not (name := task.subject.recipe):
            continue
        recipe, settings = sections.setdefault(name, {"name": name}), task.settings
        snapshot = plan.snapshot_of(task)
        data = plan.input(snapshot, "data") if snapshot else None
        if snapshot and data:
            snapshots[name] = snapshot.ref
            recipe["data"] = _fields(DataSettings, data)
            recipe |= {section: snapshot.settings[section] for section in ("network", "diffusion", "training")}
            if start := plan.input(snapshot, "start"):
                recipe["start"] = {"checkpoint": start.settings["source"], "epoch": start.settings["epoch"]}
        if task.stage == "sample" and not task.subject.recheck:
            before = recipe.get("sample", {"ema": [], "draws": 0})
            emas = list(dict.fromkeys([*before["ema"], *settings["ema"]]))
            draws = max(before["draws"], settings["draw"] + 1)
            recipe["sample"] = {k: v for k, v in settings.items() if k != "draw"} | {"ema": emas, "draws": draws}
        if task.stage == "metrics" and (reference := plan.input(task, "reference")) and "origin" in reference.settings:
            recipe["reference"] = _fields(ReferenceSettings, reference)
        if task.stage == "probe" and snapshot:
            recipe["probe"] = evaluated.setdefault(snapshot.ref, {})["probe"] = settings
        if task.stage == "diagnostics" and snapshot:
            as_probed = settings["ema"] == recipe.get("probe", {}).get("ema", "fixed")
            looks = {**settings, "ema": None} if as_probed else settings
            recipe["diagnostics"] = evaluated.setdefault(snapshot.ref, {})["diagnostics"] = looks
    for name, recipe in sections.items():
        no_fixed = recipe.get("training", {}).get("ema_beta", 0) is None  # the defaults name the fixed average, which such a training lacks
        defaults = {"sample": {"ema": ["0.050"]}, "probe": {"ema": "0.050"}} if no_fixed else {}
        # Recipes that share a training share its probe and its diagnostics, whose tasks are of one of them.
        sections[name] = defaults | evaluated.get(snapshots.get(name), {}) | recipe
    return _validated(sections)


def _fields(model: type[DataSettings | ReferenceSettings], task: Task) -> dict[str, Any]:
    return {name: task.settings[name] for name in model.model_fields if name in task.settings}


def _validated(recipes: Mapping[str, Any]) -> dict[str, Recipe]:
    """The recipes whose settings this version knows."""
    known: dict[str, Recipe] = {}
    for name, values in recipes.items():
        with suppress(ValidationError):
            known[name] = Recipe.model_validate(values)
    return known
