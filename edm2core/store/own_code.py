"""Makes the user's own code importable in this process, and tells what fails in it as theirs."""

import atexit
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

from edm2core.errors import InputError, MissingError
from edm2core.own_code.source import OwnCode, content_digest
from edm2core.store.base import Store
from edm2core.store.uploaded_sources import stored_path, take

LAST_LINES = 12  # of own code's traceback
_BROUGHT: dict[str, tuple[str, Path]] = {}  # package → its content and the folder that it is imported from


def is_here(contents: Mapping[str, str]) -> bool:
    """Whether this process can import all of these packages already. Raises InputError if it has another version of one."""
    for package, content in contents.items():
        if (there := _BROUGHT.get(package)) is not None and there[0] != content:
            what = f"This process has another version of '{package}' already: {there[0]}, not {content}."
            raise InputError(what, where=package, do_next="Start a new process for it.")
    return contents.keys() <= _BROUGHT.keys()


def brought(package: str) -> OwnCode | None:
    """A package that this process imports already, as the files that it is imported from; None if it does not."""
    if package not in _BROUGHT:
        return None
    folder = _BROUGHT[package][1]
    return OwnCode(package, folder / package if (folder / package).is_dir() else folder / f"{package}.py")


def bring(contents: Mapping[str, str], store: Store, folder: Path) -> None:
    """Make packages of own code importable, from verified copies below `folder`. `contents` are as keys hold them.

    Raises MissingError if the store does not have one, InputError if this process has another version of it already.
    """
    for package, content in contents.items():
        if is_here({package: content}):
            continue
        digest = content_digest(content)
        source = take(store, digest, folder / package)
        if source is None:
            where = f"{store.uri}/{stored_path(digest)}"
            do_next = "Run its experiment again, which puts the code into the store; nothing that is finished is computed anew."
            raise MissingError(f"The own code '{package}' is not in the store.", where=where, do_next=do_next)
        import_from(source, package, content)


def bring_for_good(contents: Mapping[str, str], store: Store) -> None:
    """Like `bring`, for as long as the process lives."""
    if not is_here(contents):
        bring(contents, store, kept_folder())


def kept_folder() -> Path:
    """A new folder that lasts as long as the process, which may import more of what is in it."""
    folder = tempfile.mkdtemp(prefix="edm2-code-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def import_from(folder: Path, package: str, content: str = "") -> None:
    """Make the package in this folder importable, before any other of its name."""
    sys.path.insert(0, str(folder.resolve()))
    sys.dont_write_bytecode = True
    _BROUGHT[package] = content, folder.resolve()


def copy_code(package: str, folder: Path) -> None:
    """Copy a package that this process has brought into a folder, from which Python can import it."""
    shutil.copytree(_BROUGHT[package][1], folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


class OwnCodeError(InputError):
    """An error in the user's own code. `lines` are the last of its traceback."""

    def __init__(self, what: str, *, where: str, do_next: str, lines: list[str]) -> None:
        super().__init__(what, where=where, do_next=do_next)
        self.lines = lines


def failure(error: Exception) -> OwnCodeError | None:
    """An error that says where in the user's own code this one was raised; None if no own code was running."""
    steps = [(step, own) for step in traceback.extract_tb(error.__traceback__) if (own := _own_file(step.filename))]
    if isinstance(error, SyntaxError) and (own := _own_file(error.filename or "")):
        steps.append((traceback.FrameSummary(error.filename or "", error.lineno or 0, "<module>"), own))
    if not steps:
        return None
    last, file = steps[-1]
    lines = []
    for step, own in steps:
        lines += [f"{own}, line {step.lineno}, in {step.name}", *([f"    {step.line}"] if step.line else [])]
    kind = type(error).__name__
    first = str(error).strip().partition("\n")[0]
    advice = "Install it where tasks run, or do without it. " if isinstance(error, ModuleNotFoundError) else ""
    return OwnCodeError(
        f"The experiment's own code failed: {kind}: {first}",
        where=f"{file}, line {last.lineno}, in {last.name}",
        do_next=f"{advice}This file is yours, not edm2's: mend it and run again. `edm2 check` tries it in seconds.",
        lines=[*lines[-LAST_LINES:], *f"{kind}: {error}".splitlines()[:LAST_LINES]],
    )


def _own_file(name: str) -> str:
    """A file of own code as its user knows it, below the experiment's folder; empty for any other file."""
    path = Path(name)
    return next((str(path.relative_to(root)) for _, root in _BROUGHT.values() if path.is_relative_to(root)), "")
