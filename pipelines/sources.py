"""What the user brings, by content: digests that keys are made of, before anything runs; and its way into a cluster's store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from edm2core.config.experiment import Experiment
from edm2core.config.settings import DataSettings
from edm2core.data.download import without_secrets
from edm2core.data.source import digest_of, fetch, source_digest
from edm2core.errors import InputError
from edm2core.metrics.imported import arrays_of
from edm2core.metrics.names import EXTRACTORS, WEIGHTS
from edm2core.plan import Task
from edm2core.stages.sources import GET_WEIGHTS, PUBLISHED, WHAT, download_folder, fetch_file, fetch_weights
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.sources import is_stored, put

TORCH_FILES = (b"PK", b"\x80\x02")  # how they begin: as a zip, the older ones as a pickle


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for a path that does not exist, for metrics without their extractor's weights, for weights that are not what
    their file's name says, and for a reference that holds no statistics in the features that it says.
    """
    sources = {recipe.data for recipe in experiment.recipes}  # recipes share data, which may be large
    by_source = {data: source_digest(data) for data in sources}
    digests = {f"data:{recipe.name}": by_source[recipe.data] for recipe in experiment.recipes}
    digests |= {f"start:{recipe.name}": digest_of(Path(recipe.start.checkpoint)) for recipe in experiment.recipes if recipe.start}
    for reference in {recipe.reference for recipe in experiment.recipes if recipe.reference}:
        arrays_of(Path(reference.source), EXTRACTORS[reference.extractor])
    digests |= {f"reference:{recipe.name}": digest_of(Path(recipe.reference.source)) for recipe in experiment.recipes if recipe.reference}
    left_out = absent(experiment)
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
        source = experiment.weights[kind]
        if source is None:
            found[metric.result] = f"The experiment names no weights of {WHAT[kind]}. {GET_WEIGHTS[kind]}"
        elif "://" not in source and not Path(source).exists():
            found[metric.result] = f"There is no file {source}. {GET_WEIGHTS[kind]}"
    return found


def brought(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that read something which the user brings."""
    return [task for task in tasks if task.stage in ("prepare", "start", "extractor", "reference") and task.settings.get("digest")]


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
        say(f"uploading {without_secrets(source) if '://' in source else source} to {store.uri}")
        found = _fetch(task, cache)
        if found is not None:
            put(store, digest, found, cache)


def _fetch(task: Task, cache: Path) -> Path | None:
    """What a task reads that the user brings, on this machine."""
    if task.stage == "prepare":
        return fetch(DataSettings.model_validate(task.settings), cache)
    return fetch_weights(task.settings, cache) if task.stage == "extractor" else fetch_file(task.settings)


def weights_digest(kind: str, source: str | None) -> str:
    """The digest of an extractor's weights, a path or URL; of the published Inception's its beginning, wherever it comes from.

    Raises InputError where there are none, where the file is none of torch's (a page that says 404), and where its name ends with another
    digest than its own.
    """
    where, do_next = f"{kind}_weights", GET_WEIGHTS[kind]
    if source is None:
        raise InputError(f"The metrics need the weights of {WHAT[kind]}, and the experiment names none.", where=where, do_next=do_next)
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", source)  # torch hub's habit: the file's name ends with its SHA-256's beginning
    if "://" in source:
        if not named:
            raise InputError(
                f"The name of {source} does not end with its digest, so it could not be checked.", where=where, do_next=do_next
            )
        return f"sha256:{named[1]}"
    if not Path(source).is_file():
        raise InputError(f"There is no file {source}.", where=where, do_next=do_next)
    with Path(source).open("rb") as file:
        if file.read(2) not in TORCH_FILES:
            raise InputError(f"{source} is no file of weights: it does not begin as torch's do.", where=where, do_next=do_next)
    digest = digest_of(Path(source))
    if named and not digest.startswith(f"sha256:{named[1]}"):
        raise InputError(f"{source} is not what its name says: its digest is {digest}.", where=where, do_next=do_next)
    return PUBLISHED if digest.startswith(PUBLISHED) else digest
