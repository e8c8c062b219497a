"""Gives tasks the users' own files: from the store, if they were uploaded, else from the path or URL in the settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edm2core.addresses import is_url
from edm2core.config.settings import DataSettings
from edm2core.data.download import NOBODY, Listener, Wanted, download
from edm2core.data.source import check_digest, digest_of, fetch, wrong_digest
from edm2core.errors import EdmError, InputError, Interrupted
from edm2core.paths import cache_folder
from edm2core.registry import WEIGHT_FILES, WEIGHTS
from edm2core.store.uploaded_sources import stored_path, take
from edm2core.worker.workspace import Workspace

T = TypeVar("T")


def data_settings(settings: Mapping[str, Any]) -> DataSettings:
    """The settings of the data set, from those of the task that prepares it."""
    return DataSettings.model_validate({name: value for name, value in settings.items() if name != "revised"})


def data_source(work: Workspace) -> Path | None:
    """The file or folder that a data set is made from, its digest checked; None if the data come with a package."""
    settings = data_settings(work.settings)
    if settings.facts.builtin:
        return None
    return _stored_or(work, settings.digest or "", lambda listener: fetch(settings, cache_folder(), listener))


def weights_file(work: Workspace) -> Path:
    """The file of an extractor's weights, its digest checked."""
    return _stored_or(work, declared_digest(work.settings), lambda listener: fetch_weights(work.settings, cache_folder(), listener))


def brought_file(work: Workspace) -> Path:
    """The file or folder that a task's settings name by path and digest, such as imported statistics."""
    return _stored_or(work, work.settings["digest"], lambda listener: fetch_file(work.settings))


def fetch_file(settings: Mapping[str, Any]) -> Path:
    """The path in a task's settings, which is that of a checkpoint, statistics or images; its digest is checked."""
    path = Path(settings["source"])
    check_digest(path, settings["digest"], str(path), "It has changed since the experiment was planned: run it again.")
    return path


def declared_digest(settings: Mapping[str, Any]) -> str:
    """The beginning that the digest of an extractor's weights must have."""
    return str(settings.get("digest") or WEIGHT_FILES[WEIGHTS[settings["extractor"]]].published)


def fetch_weights(settings: Mapping[str, Any], cache: Path, listener: Listener = NOBODY) -> Path:
    """The file of an extractor's weights, from the path or URL in its settings, checked. A download goes into `cache`."""
    kind, source, declared = WEIGHTS[settings["extractor"]], settings.get("source"), declared_digest(settings)
    file = WEIGHT_FILES[kind]
    where, do_next = f"{kind}_weights: {source}" if source else f"{kind}_weights", file.get

    def check(path: Path) -> None:
        if not (actual := digest_of(path)).startswith(declared):
            raise wrong_digest(path, declared, actual, str(path), do_next)

    if not source:
        raise InputError(f"The weights of {file.words} do not come with this program.", where=where, do_next=do_next)
    if is_url(source):
        target = cache / Path(urlsplit(source).path).name
        try:
            return download(Wanted(source, f"{kind}_weights", listener), target, check)
        except InputError as error:
            raise InputError(error.what, where=where, do_next=do_next) from error
    if not Path(source).is_file():
        raise InputError(f"The weights of {file.words} are not there.", where=where, do_next=do_next)
    check(Path(source))
    return Path(source)


def _stored_or(work: Workspace, digest: str, get: Callable[[Listener], T]) -> Path | T:
    """The store's copy of the source, else the one from `get`, whose errors then say that the store has no copy."""
    if digest and (stored := take(work.store, digest, work.out.parent / "source")) is not None:
        return stored
    try:
        return get(Listener(lambda done, total: work.progress(done, total, unit="bytes"), work.warn))
    except Interrupted:
        raise
    except EdmError as error:
        raise type(error)(
            error.what,
            where=f"{error.where}; the store has no copy of it either: {work.store.uri}/{stored_path(digest)}" if digest else error.where,
            do_next=f"{error.do_next.rstrip('.')}. For a cluster, `edm2 submit` and `edm2 run --cluster` upload it from where it is.",
            permanent=error.permanent,
        ) from error
