"""A plan: an experiment's tasks and resolved recipes, and what can be asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, overload

from pydantic import ValidationError

from edm2core.addresses import redacted, shown
from edm2core.config.settings import DataSettings, ProbeSettings, Recipe, ReferenceSettings, SampleSettings
from edm2core.metrics.names import Metric, in_words
from edm2core.plan.experiment import Experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, tasks_of, trajectory_ref, which


@dataclass(frozen=True)
class Plan(Sequence[Task]):
    """Tasks, each after what it needs, and by name the recipes that they are of: a section that no task uses is at its default."""

    tasks: tuple[Task, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Self:
        """The plan of these tasks; where they come without recipes, those are put together from what the tasks say."""
        found = tuple(tasks)
        return tasks if isinstance(tasks, cls) else cls(found, earlier_recipes(found))

    @classmethod
    def parse(cls, tasks: Iterable[Mapping[str, Any]], recipes: Mapping[str, Any] | None) -> Self:
        """The plan in stored form; `recipes` is None or empty where an earlier version wrote it."""
        parsed = tuple(map(Task.from_json, tasks))
        if not recipes:
            return cls.of(parsed)
        return cls(parsed, _validated(recipes))

    def stored_recipes(self) -> dict[str, Any]:
        """The recipes as JSON holds them."""
        return {name: recipe.model_dump(mode="json") for name, recipe in self.recipes.items()}

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        return self.tasks[index]

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    @cached_property
    def by_ref(self) -> Mapping[Ref, Task]:
        return {task.ref: task for task in self.tasks}

    def input(self, task: Task, name: str) -> Task | None:
        """The task whose result a task reads under this name; None where the plan has none."""
        ref = task.inputs.get(name)
        return self.by_ref.get(ref) if ref else None

    def snapshot_of(self, task: Task) -> Task | None:
        """The snapshot that a result stands on, itself if it is one, else through its samples or a mixed average; None without any."""
        if task.stage == "snapshot":
            return task
        below = self.input(task, "samples") or self.input(task, "snapshot")
        return self.snapshot_of(below) if below else None

    def standing_on(self, tasks: Iterable[Task]) -> list[Task]:
        """Everything in the plan that tasks stand on, and the tasks themselves, in the plan's order."""
        waiting, found = list(tasks), set[Ref]()
        while waiting:
            task = waiting.pop()
            if task.ref not in found:
                found.add(task.ref)
                waiting += [self.by_ref[ref] for ref in task.needs if ref in self.by_ref]
        return [task for task in self.tasks if task.ref in found]

    def measured(self, task: Task) -> tuple[Metric, ...]:
        """The metrics that a task measures of samples."""
        extractor = self.input(task, "extractor")
        if task.stage != "metrics" or extractor is None:
            return ()
        return tuple(Metric(name, extractor.settings["extractor"]) for name in task.settings["metrics"])

    def what(self, task: Task) -> str:
        """What a task does, without whose and at which epoch: train, probe, FD (digits features), 2000 samples · EMA 0.050."""
        subject = task.subject
        if not subject.recipe:
            return task.title
        words = {
            "snapshot": "train",
            "ema": f"EMA {subject.ema}",
            "sample": f"{task.settings.get('count')} samples",
            "metrics": in_words(self.measured(task)) if task.stage == "metrics" else "",
        }.get(task.stage, task.stage)
        recipe = self.recipes.get(subject.recipe)
        several = which(recipe, subject.ema, subject.draw) if recipe and subject.draw is not None else ""
        return words + several

    def trajectories(self) -> dict[Ref, list[Task]]:
        """The tasks of each trajectory, in the plan's order; what several share is in none."""
        groups: dict[Ref, list[Task]] = {}
        for task in self.tasks:
            if snapshot := self.snapshot_of(task):
                groups.setdefault(self._trajectory_of[snapshot.ref], []).append(task)
        return groups

    @cached_property
    def _trajectory_of(self) -> Mapping[Ref, Ref]:
        return {task.ref: trajectory_ref(task) for task in self.tasks if task.stage == "snapshot"}


def plan(experiment: Experiment, digests: Mapping[str, str]) -> Plan:
    """An experiment's plan; `digests` names what the user brought by content, see `tasks_of`."""
    tasks = tasks_of(experiment, digests)
    return Plan(tuple(tasks), {recipe.name: _as_planned(recipe, tasks, digests) for recipe in experiment.recipes})


def _as_planned(recipe: Recipe, tasks: Sequence[Task], digests: Mapping[str, str]) -> Recipe:
    """The recipe with what tasks say of the data and the samples; sections that none uses are at their defaults, secrets are left out."""
    own = [task for task in tasks if task.subject.recipe == recipe.name]
    drawn = next((task for task in own if task.stage == "sample"), None)
    probed = any(task.stage == "probe" for task in own)
    references = {task.inputs["reference"] for task in own if task.stage == "metrics"}
    imported = any(task.ref in references and "origin" in task.settings for task in tasks)
    digest = digests[f"data:{recipe.name}"]
    changes: dict[str, Any] = {
        "data": recipe.data.model_copy(
            update={"source": shown(recipe.data.source or "") or None, "digest": None if digest.startswith("builtin:") else digest}
        ),
        "reference": recipe.reference.model_copy(update={"origin": redacted(recipe.reference.origin)})
        if recipe.reference and imported
        else None,
    }
    if recipe.start:
        changes["start"] = recipe.start.model_copy(update={"epoch": recipe.start.completed})
    if drawn:
        changes["sample"] = recipe.sample.model_copy(update={"count": drawn.settings["count"]})
    elif recipe.training.ema_beta is not None:  # else there is no fixed average, which is the default
        changes["sample"] = SampleSettings()
    if not probed and recipe.training.ema_beta is not None:
        changes["probe"] = ProbeSettings()
    return recipe.model_copy(update=changes)


def earlier_recipes(tasks: Iterable[Task]) -> dict[str, Recipe]:
    """The recipes of a plan that was stored without them, put together from its tasks' settings."""
    plan, sections = Plan(tuple(tasks)), dict[str, dict[str, Any]]()
    for task in plan:
        if not (name := task.subject.recipe):
            continue
        recipe, settings = sections.setdefault(name, {"name": name}), task.settings
        snapshot = plan.snapshot_of(task)
        data = plan.input(snapshot, "data") if snapshot else None
        if snapshot and data:
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
        if task.stage == "probe":
            recipe["probe"] = settings
    return _validated(sections)


def _fields(model: type[DataSettings | ReferenceSettings], task: Task) -> dict[str, Any]:
    return {name: task.settings[name] for name in model.model_fields if name in task.settings}


def _validated(recipes: Mapping[str, Any]) -> dict[str, Recipe]:
    """The recipes whose settings this version knows."""
    found: dict[str, Recipe] = {}
    for name, values in recipes.items():
        with suppress(ValidationError):
            found[name] = Recipe.model_validate(values)
    return found
