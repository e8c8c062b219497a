"""What the user brings, by content: digests that keys are made of, before anything runs; and its way into a cluster's store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from edm2core.config.experiment import Experiment
from edm2core.config.settings import DataSettings
from edm2core.data.download import without_secrets
from edm2core.data.source import digest_of, fetch, source_digest
from edm2core.errors import InputError
from edm2core.plan import Task
from edm2core.stages.sources import WEIGHTS_URL, download_folder, fetch_checkpoint, fetch_weights
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.sources import is_stored, put


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for a path that does not exist, and for Inception metrics without Inception's weights.
    """
    sources = {recipe.data for recipe in experiment.recipes}  # recipes share data, which may be large
    by_source = {data: source_digest(data) for data in sources}
    digests = {f"data:{recipe.name}": by_source[recipe.data] for recipe in experiment.recipes}
    digests |= {f"start:{recipe.name}": digest_of(Path(recipe.start.checkpoint)) for recipe in experiment.recipes if recipe.start}
    if "fid" in experiment.metrics:
        digests["inception"] = _inception(experiment.inception_weights)
    return digests


def brought(tasks: Iterable[Task]) -> list[Task]:
    """The tasks that read something which the user brings."""
    return [task for task in tasks if task.stage in ("prepare", "start", "extractor") and task.settings.get("digest")]


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
    return fetch_checkpoint(task.settings) if task.stage == "start" else fetch_weights(task.settings, cache)


def _inception(source: str | None) -> str:
    advice = f"Download {WEIGHTS_URL} and set `inception_weights:` to its path, or to that URL where there is a network."
    if source is None:
        raise InputError("FID needs the weights of Inception, and the experiment names none.", where="inception_weights", do_next=advice)
    if "://" in source:
        named = re.search(r"-([0-9a-f]{8,64})\.pth$", source)  # torch hub's habit: the file's name ends with its SHA-256's beginning
        if not named:
            raise InputError(
                f"The name of {source} does not end with its digest, so it could not be checked.", where="inception_weights", do_next=advice
            )
        return f"sha256:{named[1]}"
    path = Path(source)
    if not path.is_file():
        raise InputError(f"There is no file {path}.", where="inception_weights", do_next=advice)
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
