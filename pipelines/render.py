"""Ready training jobs for `kubectl apply`: one file a recipe, which needs no plan, no client and nobody to follow it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from components.launcher.job import to_manifest
from components.launcher.profile import Profile
from components.launcher.spec import JobSpec, job_name
from edm2core.config import load_recipe, recipe_names
from edm2core.config.experiment import Experiment
from edm2core.config.settings import Recipe
from edm2core.plan import Task, plan
from pipelines.sources import resolve

FOLDER = Path("k8s/pytorchjobs")
LAB = "lab"  # the profile of recipes that train on anything
GPU = "gpu"


def usual_profile(recipe: str) -> str:
    """The profile that a recipe's file in the repository is made with."""
    return LAB if "digits" in recipe.split("/") else GPU


def ready_job(recipe: Recipe, profile: Profile) -> dict[str, Any]:
    """The PyTorchJob that prepares a recipe's data where they are missing and trains to the recipe's end, seed 0.

    It has the name and makes the results that an experiment with this recipe wants, so that a later one finds them.
    """
    data, training = _tasks(recipe)
    resources = profile.resources_of("snapshot")
    spec = JobSpec(
        job_name(training, profile.store.uri),
        "edm2core.stages.prepare_and_train",
        training,
        profile.store.uri,
        resources.nodes,
        resources.processes_per_node,
        {"EDM2_PREPARE": json.dumps(data.to_json(), separators=(",", ":"))},
    )
    job = to_manifest(spec, profile)
    template = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    template["metadata"]["labels"]["edm2/prepares"] = "yes"  # k8s/components/downloads lets it fetch the archive
    return job


def render(names: tuple[str, ...], profile_of: dict[str, Profile], folder: Path) -> list[Path]:
    """Write the ready jobs of these recipes, all published ones if none is named; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names or recipe_names():
        recipe, profile = load_recipe(name), profile_of[name]
        file = folder / f"{recipe.name.replace('/', '-')}.yaml"
        file.write_text(text(recipe, profile))
        written.append(file)
    return written


def text(recipe: Recipe, profile: Profile) -> str:
    """The file of a ready job, with what to do with it at its top."""
    job = ready_job(recipe, profile)
    name, namespace = job["metadata"]["name"], profile.namespace
    hold = '{"spec": {"runPolicy": {"suspend": true}}}'
    head = [
        f"Trains {recipe.name} for {recipe.training.epochs} epochs (profile {profile.name}). Written by `edm2 render`.",
        f"Follow it: kubectl -n {namespace} logs -f -l training.kubeflow.org/job-name={name} --prefix",
        f"Stop it, its state saved: kubectl -n {namespace} patch pytorchjob {name} --type merge -p '{hold}'",
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(job, sort_keys=False, width=2**20, allow_unicode=True)


def _tasks(recipe: Recipe) -> tuple[Task, Task]:
    """What prepares the recipe's data, and what trains to its end with a snapshot wherever the recipe wants one."""
    every, last = recipe.training.snapshot_every, recipe.training.epochs
    epochs = tuple(sorted({*range(every, last + 1, every), last}))
    experiment = Experiment(recipe.name, (recipe,), (0,), {recipe.name: epochs}, {recipe.name: ()}, False, False, {}, "")
    tasks = plan(experiment, resolve(experiment))
    return next(task for task in tasks if task.stage == "prepare"), [task for task in tasks if task.stage == "snapshot"][-1]
