"""edm2 render: ready training jobs for `kubectl apply`, which need no plan, no client and nobody who follows them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import yaml

from components.launcher.job import cluster_spec, prerequisites, selector, to_manifest
from components.launcher.job_kinds import KINDS, kind_of
from components.launcher.profile import Profile, load_profile
from edm2core.config import load_recipe, recipe_names
from edm2core.config.settings import Recipe
from edm2core.errors import InputError
from edm2core.plan.experiment import Experiment
from edm2core.plan.tasks import Task
from pipelines.cli import completion, options
from pipelines.inputs.user_files import planned


@click.command()
@click.argument("recipes", nargs=-1, shell_complete=completion.recipes)
@click.option("--cluster", metavar="PROFILE", help="Cluster profile (default: gpu, and lab for digits).")
@click.option("--job", type=click.Choice([kind.word for kind in KINDS]), help="Kind of job (default: the profile's, else pytorchjob).")
@click.option("--out", type=options.FOLDER, help="Folder to write to (default: k8s/pytorchjobs or k8s/trainjobs, by the kind of job).")
@click.option(
    "--runtimes",
    "only_runtimes",
    is_flag=True,
    help="Print instead the TrainingRuntimes that the profile's TrainJobs need; without --cluster those of a profile's defaults.",
)
def command(recipes: tuple[str, ...], cluster: str | None, job: str | None, out: Path | None, only_runtimes: bool) -> None:
    """Write training jobs for each of RECIPES, ready for `kubectl apply -f`. Default: C, E and G of each data set.

    A job prepares its data if the store does not have them, and trains. Images are named by digest once `make images` has recorded it.
    """

    def profile(name: str) -> Profile:
        read = load_profile(name) if name else plain_profile()
        return read.model_copy(update={"job": job}) if job else read

    if only_runtimes:
        click.echo(runtimes(profile(cluster or "")), nl=False)
        return
    for name in recipes or kept_recipes():
        click.echo(render(name, profile(cluster or usual_profile(name)), out))


def plain_profile() -> Profile:
    """A profile that leaves out all that it may; k8s/base has the runtime of its TrainJobs."""
    images = {"compute": "edm2-compute", "control": "edm2-control"}
    return Profile.model_validate({"name": "plain", "namespace": "edm2", "store": {"uri": "s3://edm2/store"}, "images": images})


def kept_recipes() -> tuple[str, ...]:
    """The recipes whose jobs are kept in the repository: C, E and G of each data set. `edm2 render RECIPE` writes any other."""
    return tuple(name for name in recipe_names() if not name.startswith("paper/") and not name.endswith("-cond"))


def usual_profile(recipe: str) -> str:
    """The profile for a recipe's file in the repository: the digits train on any node."""
    return "lab" if "digits" in recipe.split("/") else "gpu"


def ready_jobs(recipe: Recipe, profile: Profile) -> tuple[dict[str, Any], dict[str, Any]]:
    """The job that prepares a recipe's data if they are missing, and the job that waits for them and trains to the end with seed 0.

    A later experiment with this recipe finds their results, since names and keys are the same. They are two jobs since only the first
    needs access to the internet (k8s/components/downloads).
    """
    preparing, training = (cluster_spec(task, profile.store.uri, profile) for task in _tasks(recipe))
    return to_manifest(preparing, profile), to_manifest(replace(training, wait=True), profile)


def render(name: str, profile: Profile, folder: Path | None) -> Path:
    """Write the ready jobs of a recipe into a folder, by default the repository's for jobs of their kind; returns the file."""
    recipe = load_recipe(name)
    file = (folder or Path("k8s") / kind_of(profile).plural) / f"{recipe.name.replace('/', '-')}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text(recipe, profile), encoding="utf-8")
    return file


def runtimes(profile: Profile) -> str:
    """The file of the TrainingRuntimes that TrainJobs of a profile name. Raises InputError if its jobs are of a kind that needs none."""
    needed = prerequisites(profile)
    if not needed:
        what = f"{kind_of(profile).name}s need no TrainingRuntime."
        raise InputError(what, where=f"profile {profile.name}", do_next="Add `--job trainjob`, or set `job: trainjob` in the profile.")
    head = (
        f"# What TrainJobs of the profile {profile.name} have in common; it has to be in their namespace before they start.\n"
        "# Written by `edm2 render --runtimes`. A name has a digest of its contents, so a change of the profile may need a new one.\n"
    )
    return head + yaml.safe_dump_all(needed, sort_keys=False, default_flow_style=None, width=2**20)


def text(recipe: Recipe, profile: Profile) -> str:
    """The file of a recipe's ready jobs, which begins with how to use them."""
    jobs = ready_jobs(recipe, profile)
    name, namespace = jobs[1]["metadata"]["name"], profile.namespace
    kind = kind_of(profile)
    labels, suspend = selector(kind.pod_labels(name)), json.dumps(kind.suspension(True))
    head = [
        f"Prepares the data where they are not in the store, and trains {recipe.name} for {recipe.training.epochs} epochs.",
        f"Written by `edm2 render` for the profile {profile.name}.",
        f"Follow it: kubectl -n {namespace} logs -f -l {labels} --prefix",
        f"Stop it, its state saved: kubectl -n {namespace} patch {kind.word} {name} --type merge -p '{suspend}'",
    ]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump_all(jobs, sort_keys=False, width=2**20, allow_unicode=True)


def _tasks(recipe: Recipe) -> tuple[Task, Task]:
    """The task that prepares the recipe's data, and its last snapshot, with the epochs of all others."""
    every, last = recipe.training.snapshot_every, recipe.training.epochs
    epochs = tuple(sorted({*range(every, last + 1, every), last}))
    experiment = Experiment(recipe.name, (recipe,), (0,), {recipe.name: epochs}, {recipe.name: ()}, False, False, {}, "")
    tasks = planned(experiment)
    return next(task for task in tasks if task.stage == "prepare"), [task for task in tasks if task.stage == "snapshot"][-1]
