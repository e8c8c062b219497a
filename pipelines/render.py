"""Ready training jobs for `kubectl apply`: one file a recipe, which needs no plan, no client and nobody to follow it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from components.launcher.job import cluster_spec, selector, to_manifest
from components.launcher.job_kinds import kind_of
from components.launcher.profile import Profile
from edm2core.config import load_recipe, recipe_names
from edm2core.config.settings import Recipe
from edm2core.plan.experiment import Experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from pipelines.inputs.sources import resolve

FOLDER = Path("k8s/pytorchjobs")
LAB = "lab"  # the profile of recipes that train on anything
GPU = "gpu"


def kept_recipes() -> tuple[str, ...]:
    """The recipes whose jobs lie in the repository: C, E and G of each data set. `edm2 render RECIPE` writes any other's."""
    return tuple(name for name in recipe_names() if not name.startswith("paper/"))


def usual_profile(recipe: str) -> str:
    """The profile that a recipe's file in the repository is made with."""
    return LAB if "digits" in recipe.split("/") else GPU


def ready_jobs(recipe: Recipe, profile: Profile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job that prepares a recipe's data where they are missing, and the one that waits for them and trains to its end, seed 0.

    They have the names and make the results that an experiment with this recipe wants, so that a later one finds them. They are two so
    that what downloads need not be what trains: each has the network that its work needs (k8s/components/downloads).
    """
    data, training = _tasks(recipe)
    return _job(data, profile), _job(training, profile, wait=True)


def _job(task: Task, profile: Profile, wait: bool = False) -> dict[str, Any]:
    return to_manifest(replace(cluster_spec(task, profile.store.uri, profile), wait=wait), profile)


def render(names: tuple[str, ...], profile_of: dict[str, Profile], folder: Path) -> list[Path]:
    """Write the ready jobs of these recipes; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        recipe, profile = load_recipe(name), profile_of[name]
        file = folder / f"{recipe.name.replace('/', '-')}.yaml"
        file.write_text(text(recipe, profile), encoding="utf-8")
        written.append(file)
    return written


def text(recipe: Recipe, profile: Profile) -> str:
    """The file of a recipe's ready jobs, with what to do with them at its top."""
    jobs = ready_jobs(recipe, profile)
    name, namespace = jobs[1]["metadata"]["name"], profile.namespace
    kind = kind_of(profile)
    labels, suspend = selector(kind.pod_labels(name)), json.dumps(kind.suspension(True))
    head = [
        f"Prepares the data where they are not in the store, and trains {recipe.name} for {recipe.training.epochs} epochs.",
        f"Written by `edm2 render` for the profile {profile.name}.",
        f"Follow it: kubectl -n {namespace} logs -f -l {labels} --prefix",
        f"Stop it, its state saved: kubectl -n {namespace} patch {kind.name.lower()} {name} --type merge -p '{suspend}'",
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump_all(jobs, sort_keys=False, width=2**20, allow_unicode=True)


def _tasks(recipe: Recipe) -> tuple[Task, Task]:
    """What prepares the recipe's data, and what trains to its end with a snapshot wherever the recipe wants one."""
    every, last = recipe.training.snapshot_every, recipe.training.epochs
    epochs = tuple(sorted({*range(every, last + 1, every), last}))
    experiment = Experiment(recipe.name, (recipe,), (0,), {recipe.name: epochs}, {recipe.name: ()}, False, False, {}, "")
    tasks = plan(experiment, resolve(experiment))
    return next(task for task in tasks if task.stage == "prepare"), [task for task in tasks if task.stage == "snapshot"][-1]
