"""Gives tasks the users' own files: from the store, if they were uploaded, else from the path or URL in the settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edm2core.addresses import is_url
from edm2core.config.settings import DataSettings
from edm2core.data.download import NOBODY, Listener, Wanted, download
from edm2core.data.source import check_digest, fetch
from edm2core.errors import EdmError, InputError, Interrupted
from edm2core.paths import cache_folder
from edm2core.registry import WEIGHT_FILES, WEIGHTS
from edm2core.store.uploaded_sources import stored_path, take
from edm2core.worker.workspace import Workspace


def data_settings(settings: Mapping[str, Any]) -> DataSettings:
    """The settings of the data set, from those of the task that prepares it."""
    return DataSettings.model_validate({name: value for name, value in settings.items() if name != "revised"})


def brought(work: Workspace) -> Path:
    """The file or folder that the user brings for a task: the store's copy, else the one at the path or URL in the settings.

    Its digest is checked. Errors say that the store has no copy.
    """
    stage, settings = work.task.stage, work.settings
    digest = _declared_digest(settings) if stage == "extractor" else str(settings.get("digest") or "")
    if digest and (stored := take(work.store, digest, work.out.parent / "source")) is not None:
        return stored
    try:
        return fetch_source(stage, settings, Listener(lambda done, total: work.progress(done, total, unit="bytes"), work.warn))
    except Interrupted:
        raise
    except EdmError as error:
        where = f"{error.where}; the store has no copy of it either: {work.store.uri}/{stored_path(digest)}" if digest else error.where
        do_next = f"{error.do_next.rstrip('.')}. For a cluster, `edm2 submit` and `edm2 run --cluster` upload it from where it is."
        raise type(error)(error.what, where=where, do_next=do_next, permanent=error.permanent) from error


def fetch_source(stage: str, settings: Mapping[str, Any], listener: Listener = NOBODY) -> Path:
    """The source in a task's settings on this machine, its digest checked. A URL is downloaded into the cache."""
    if stage == "prepare":
        return fetch(data_settings(settings), cache_folder(), listener)
    if stage == "extractor":
        return _fetch_weights(settings, listener)
    path = Path(settings["source"])
    check_digest(path, settings["digest"], str(path), "It has changed since the experiment was planned: run it again.")
    return path


def _declared_digest(settings: Mapping[str, Any]) -> str:
    """The beginning that the digest of an extractor's weights must have."""
    return str(settings.get("digest") or WEIGHT_FILES[WEIGHTS[settings["extractor"]]].published)


def _fetch_weights(settings: Mapping[str, Any], listener: Listener) -> Path:
    kind, source = WEIGHTS[settings["extractor"]], settings.get("source")
    setting, file = f"{kind}_weights", WEIGHT_FILES[kind]

    def check(path: Path) -> None:
        check_digest(path, _declared_digest(settings), str(path), file.get)

    if source and is_url(source):
        try:
            return download(Wanted(source, setting, listener), cache_folder() / Path(urlsplit(source).path).name, check)
        except InputError as error:
            raise InputError(error.what, where=f"{setting}: {source}", do_next=file.get) from error
    if not source or not Path(source).is_file():
        absent = "are not there" if source else "do not come with this program"
        raise InputError(f"The weights of {file.words} {absent}.", where=f"{setting}: {source or 'none'}", do_next=file.get)
    check(Path(source))
    return Path(source)
