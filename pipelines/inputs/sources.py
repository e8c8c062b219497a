"""What the user brings: the digests of its contents, which keys are made of, and its upload to the store of a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from edm2core.addresses import is_url, shown
from edm2core.data.download import Listener
from edm2core.data.headers import check_torch
from edm2core.data.source import digest_of, fetch, source_digest
from edm2core.metrics.gaussian import arrays_of
from edm2core.plan.checks import Request, check_data
from edm2core.plan.experiment import Experiment
from edm2core.plan.plan import Plan, plan
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

LOOK_S = 1.0  # between two checks whether somebody else's upload has ended


def planned(experiment: Experiment, accept_code: bool = False) -> Plan:
    """The plan of an experiment and of what the user brings for it; raises InputError as `resolve` does.

    With `accept_code`, trainings may go on from states that other science made.
    """
    tasks = plan(experiment, resolve(experiment))
    marked = (replace(task, accept_code=task.stage == "snapshot") for task in tasks)
    return replace(tasks, tasks=tuple(marked)) if accept_code else tasks


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for
    - a path that does not exist, and a checkpoint that is no file of torch.save;
    - metrics whose extractor has no weights, and weights that are another file than their name says, or another network's;
    - a reference without statistics in its features;
    - fewer data than what is measured needs.
    """
    by_source = {data: source_digest(data) for data in {recipe.data for recipe in experiment.recipes}}  # data may be large: each once
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
    """The optional metrics that are left out because their extractor's weights are missing: by their name in results, and why."""
    asked = {metric for metrics in experiment.metrics.values() for metric in metrics}
    required = {WEIGHTS.get(metric.extractor) for metric in asked - experiment.optional}  # it is an error if these are missing
    left_out = {}
    for metric in sorted(asked & experiment.optional):
        kind = WEIGHTS.get(metric.extractor)
        if kind is None or kind in required:
            continue
        source, file = experiment.weights[kind], WEIGHT_FILES[kind]
        if source is None:
            left_out[metric.result] = f"The experiment names no weights of {file.words}. {file.get}"
        elif not is_url(source) and not Path(source).exists():
            left_out[metric.result] = f"There is no file {source}. {file.get}"
    return left_out


def brought(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that read a source that the user brings."""
    return [task for task in tasks if STAGES[task.stage].reads_sources and task.settings.get("digest")]


def bring_here(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Download sources whose URL has a secret. Tasks do not know the secret, and find the file in the folder of downloads.

    Raises as `upload`.
    """
    for task in brought(tasks):
        if shown(task.address) != task.address and load(store, task.ref) is None and not is_stored(store, task.settings["digest"]):
            say(f"downloading {shown(task.address)}")
            _fetch(task, say)


def upload(tasks: Iterable[Task], store: Store, say: Callable[[str], None]) -> None:
    """Put sources into the store for tasks that cannot read this machine's disk.

    Sources that are stored already, and those that only finished tasks read, are left out. `say` gets a line for each upload. Raises
    InputError for a source that is missing or whose bytes do not have its digest, StoreError if the store refuses.
    """
    for task in brought(tasks):
        digest, source = task.settings["digest"], task.settings["source"]
        if load(store, task.ref) is None and not is_stored(store, digest):
            say(f"uploading {shown(source)} to {store.uri}")
            if path := _fetch(task, say):
                _put(store, digest, path, say)


def _put(store: Store, digest: str, path: Path, say: Callable[[str], None]) -> None:
    """Store a source under a lease, so that no gc removes it and nobody else uploads it at the same time."""
    said = False
    while not is_stored(store, digest):
        try:
            with acquire(store, source_ref(digest)):
                put(store, digest, path, download_folder())
        except Busy as busy:
            if not said:
                say(f"waiting: {busy.what}")
            said = True
            time.sleep(LOOK_S)


def _fetch(task: Task, say: Callable[[str], None]) -> Path | None:
    """The source of a task on this machine's disk, downloaded if it is a URL."""
    listener, cache = Listener(say=say), download_folder()
    settings = task.settings | ({"source": task.address} if task.address else {})
    if task.stage == "prepare":
        return fetch(data_settings(settings), cache, listener)
    return fetch_weights(settings, cache, listener) if task.stage == "extractor" else fetch_file(settings)
