"""What the user brings, by content: digests that keys are made of, before anything runs; and its way into a cluster's store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edm2core.addresses import is_url, shown
from edm2core.data.download import Listener
from edm2core.data.headers import check_torch
from edm2core.data.source import digest_of, fetch, source_digest
from edm2core.metrics.gaussian import arrays_of
from edm2core.plan.checks import Request, check_data
from edm2core.plan.experiment import Experiment
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.registry import EXTRACTORS, WEIGHT_FILES, WEIGHTS
from edm2core.store.base import Store
from edm2core.store.leases import Busy, acquire
from edm2core.store.results import load
from edm2core.store.sources import is_stored, put, source_ref
from edm2core.worker.sources import data_settings, download_folder, fetch_file, fetch_weights
from pipelines.inputs.extractor_weights import weights_digest
from pipelines.inputs.survey import is_revised, survey_data, survey_of

LOOK_S = 1.0  # between two looks whether another one's upload has ended


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for a path that does not exist, for a checkpoint that is no file of torch.save, for metrics without their extractor's
    weights, for weights that are not what their file's name says or plainly of another network, for a reference that holds no statistics
    in the features that it says, and for data that are too few for what is measured.
    """
    sources = {recipe.data for recipe in experiment.recipes}  # recipes share data, which may be large
    by_source = {data: source_digest(data) for data in sources}
    digests = {f"data:{recipe.name}": by_source[recipe.data] for recipe in experiment.recipes}
    for start in {recipe.start for recipe in experiment.recipes if recipe.start}:
        check_torch(Path(start.checkpoint))
    digests |= {f"start:{recipe.name}": digest_of(Path(recipe.start.checkpoint)) for recipe in experiment.recipes if recipe.start}
    for reference in {recipe.reference for recipe in experiment.recipes if recipe.reference}:
        arrays_of(Path(reference.source), EXTRACTORS[reference.extractor].dimensions)
    digests |= {f"reference:{recipe.name}": digest_of(Path(recipe.reference.source)) for recipe in experiment.recipes if recipe.reference}
    left_out = absent(experiment)
    surveys = survey_data(experiment)
    digests |= {f"revised:{recipe.name}": "" for recipe in experiment.recipes if is_revised(recipe.data, surveys)}
    for recipe in experiment.recipes:
        metrics = tuple(metric for metric in experiment.metrics[recipe.name] if metric.result not in left_out)
        survey = survey_of(recipe.data, surveys)
        check_data(Request(recipe, experiment.lines.get(recipe.name, str), metrics=metrics, probe=experiment.probe, survey=survey))
    used = {metric.extractor for metrics in experiment.metrics.values() for metric in metrics if metric.result not in left_out}
    return digests | {kind: weights_digest(kind, experiment.weights[kind]) for kind in {WEIGHTS[e] for e in used if e in WEIGHTS}}


def absent(experiment: Experiment) -> dict[str, str]:
    """The optional metrics that are left out, by their name in results, and why: the weights of their extractor are not there."""
    asked = {metric for metrics in experiment.metrics.values() for metric in metrics}
    required = {WEIGHTS.get(metric.extractor) for metric in asked - experiment.optional}  # whose absence is refused
    found = {}
    for metric in sorted(asked & experiment.optional):
        kind = WEIGHTS.get(metric.extractor)
        if kind is None or kind in required:
            continue
        source, file = experiment.weights[kind], WEIGHT_FILES[kind]
        if source is None:
            found[metric.result] = f"The experiment names no weights of {file.words}. {file.get}"
        elif not is_url(source) and not Path(source).exists():
            found[metric.result] = f"There is no file {source}. {file.get}"
    return found


def brought(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that read something which the user brings."""
    return [task for task in tasks if STAGES[task.stage].reads_sources and task.settings.get("digest")]


def bring_here(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Download what this machine's tasks could not by themselves, since of a URL with a user or a token they know only the rest.

    They find it where downloads are kept. Raises as `upload`.
    """
    for task in brought(tasks):
        if shown(task.address) != task.address and load(store, task.ref) is None and not is_stored(store, task.settings["digest"]):
            say(f"downloading {shown(task.address)}")
            _fetch(task, download_folder(), say)


def upload(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Put what the user brings into the store, once, for tasks that run where the user's disk is not.

    What is there already stays, and what only finished tasks read is left out; `say` gets a line for each upload. Raises InputError
    for a source that is not there or has other bytes than its digest's, StoreError where the store refuses.
    """
    cache = download_folder()
    for task in brought(tasks):
        digest, source = task.settings["digest"], task.settings["source"]
        if load(store, task.ref) is not None or is_stored(store, digest):
            continue
        say(f"uploading {shown(source)} to {store.uri}")
        found = _fetch(task, cache, say)
        if found is not None:
            _put(store, digest, found, cache, say)


def _put(store: Store, digest: str, found: Path, cache: Path, say: Callable[[str], None]) -> None:
    """Store it under a lease, so that no gc takes it for left behind and nobody uploads it twice at once."""
    said = False
    while not is_stored(store, digest):
        try:
            with acquire(store, source_ref(digest)):
                put(store, digest, found, cache)
        except Busy as busy:
            if not said:
                say(f"waiting: {busy.what}")
            said = True
            time.sleep(LOOK_S)


def _fetch(task: Task, cache: Path, say: Callable[[str], None]) -> Path | None:
    """What a task reads that the user brings, on this machine."""
    listener = Listener(say=say)
    settings = task.settings | ({"source": task.address} if task.address else {})
    if task.stage == "prepare":
        return fetch(data_settings(settings), cache, listener)
    return fetch_weights(settings, cache, listener) if task.stage == "extractor" else fetch_file(settings)
