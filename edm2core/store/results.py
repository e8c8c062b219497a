"""Results: files in the folder of an attempt, then one manifest, which makes that attempt the result."""

import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from edm2core.errors import IntegrityError, MissingError
from edm2core.plan.manifest import FileRecord, Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.store.base import Store, difference, each


def load(store: Store, ref: Ref) -> Manifest | None:
    """The manifest of a result, or None if there is none; raises IntegrityError if it is damaged or another result's."""
    try:
        data = store.read(ref.manifest)
    except MissingError:
        return None
    where = f"{store.uri}/{ref.manifest}"
    manifest = Manifest.loads(data, where)
    if manifest.ref != ref:
        raise IntegrityError(f"This is the manifest of {manifest.ref}.", where=where, do_next="Delete it; the task will be done again.")
    return manifest


def manifests(store: Store, tasks: Iterable[Task]) -> dict[Ref, Manifest]:
    """The manifests of the tasks that have a result. A damaged manifest counts as none."""

    def look(ref: Ref) -> Manifest | None:
        with suppress(IntegrityError):
            return load(store, ref)
        return None

    refs = [task.ref for task in tasks]
    return {ref: manifest for ref, manifest in zip(refs, each(store, look, refs), strict=True) if manifest is not None}


def new_attempt() -> str:
    """A name for an attempt's folder that no other writer has."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def upload_files(store: Store, ref: Ref, attempt: str, folder: Path) -> dict[str, FileRecord]:
    """Store every file below `folder` as a file of this attempt. Returns size and digest of each, by its path inside the folder.

    The files may be deleted afterwards, but not written into (Store.upload).
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: store.upload(folder / name, f"{ref.folder}/{attempt}/{name}") for name in names}


def commit(store: Store, manifest: Manifest) -> Manifest:
    """Make an attempt the result, unless another attempt already is. Returns the manifest of the result. A task does this last."""
    while not store.create(manifest.ref.manifest, manifest.dumps()):
        winner = load(store, manifest.ref)
        if winner is not None:  # None: it has been deleted since
            return winner
    return manifest


def verify(store: Store, manifest: Manifest, *, contents: bool = True) -> list[str]:
    """What is wrong with a result's files, in words. Without `contents` only their presence and size are checked."""
    files = sorted(manifest.files.items())
    problems = (difference(store, manifest.path(name), record, name, contents=contents) for name, record in files)
    return [problem for problem in problems if problem]


def discard(store: Store, ref: Ref) -> None:
    """Delete a result. Its manifest goes first, so that no reader trusts the rest."""
    store.delete(ref.manifest)
    for entry in store.list(f"{ref.folder}/"):
        store.delete(entry.path)
