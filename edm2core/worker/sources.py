"""What users brought, as tasks get it: from the store where it was uploaded, else from the path or URL in their settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edm2core.addresses import is_url
from edm2core.config.settings import DataSettings
from edm2core.data.download import NOBODY, Listener, Wanted, download
from edm2core.data.source import check_digest, digest_of, fetch, wrong_digest
from edm2core.errors import EdmError, InputError, Interrupted
from edm2core.paths import local_path
from edm2core.registry import WEIGHT_FILES, WEIGHTS
from edm2core.store.sources import stored_path, take
from edm2core.worker.workspace import Workspace

T = TypeVar("T")


def data_settings(settings: Mapping[str, Any]) -> DataSettings:
    """The settings of a data set among those of the task that prepares it."""
    return DataSettings.model_validate({name: value for name, value in settings.items() if name != "revised"})


def data_source(work: Workspace) -> Path | None:
    """The file or folder that a data set is made from, its digest checked; None where there is none to bring."""
    settings = data_settings(work.settings)
    if settings.facts.builtin:
        return None
    return _stored_or(work, settings.digest or "", lambda listener: fetch(settings, download_folder(), listener))


def weights_file(work: Workspace) -> Path:
    """The file of an extractor's weights, its digest checked."""
    return _stored_or(work, declared_digest(work.settings), lambda listener: fetch_weights(work.settings, download_folder(), listener))


def brought_file(work: Workspace) -> Path:
    """The file or folder that a task's settings name by path and digest, such as imported statistics."""
    return _stored_or(work, work.settings["digest"], lambda progress: fetch_file(work.settings))


def fetch_file(settings: Mapping[str, Any]) -> Path:
    """A checkpoint, statistics or images by the path in a task's settings, the digest checked."""
    path = Path(settings["source"])
    check_digest(path, settings["digest"], str(path), "It has changed since the experiment was planned: run it again.")
    return path


def declared_digest(settings: Mapping[str, Any]) -> str:
    """What the digest of an extractor's weights must start with."""
    return str(settings.get("digest") or WEIGHT_FILES[WEIGHTS[settings["extractor"]]].published)


def fetch_weights(settings: Mapping[str, Any], cache: Path, listener: Listener = NOBODY) -> Path:
    """An extractor's weights by the path or URL in its settings, checked; what is downloaded goes into `cache`."""
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


def download_folder() -> Path:
    """Where downloads are kept between tasks, and unfinished ones continued: `EDM2_CACHE`, else edm2 in the user's cache."""
    cache = os.environ.get("EDM2_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "edm2"
    return local_path(str(cache), "EDM2_CACHE")


def _stored_or(work: Workspace, digest: str, get: Callable[[Listener], T]) -> Path | T:
    """The store's copy of the source, else what `get` gives; its errors then say that both were looked for."""
    if digest and (found := take(work.store, digest, work.out.parent / "source")) is not None:
        return found
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
