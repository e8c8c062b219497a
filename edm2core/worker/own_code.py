"""Brings the user's own code into a stage's process, and tells what fails in it as theirs."""

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edm2core.errors import EdmError, InputError, MissingError
from edm2core.own_code.source import content_digest
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.uploaded_sources import stored_path, take
from edm2core.worker.faults import shortage
from edm2core.worker.workspace import Input

LAST_LINES = 12  # of own code's traceback
_BROUGHT: dict[str, tuple[str, Path]] = {}  # package → its content and the folder that it is imported from


def needed(task: Task, inputs: Mapping[str, Input]) -> dict[str, str]:
    """The own code that a task runs: its own, and that of the network of a snapshot that it reads."""
    snapshot = inputs.get("snapshot")
    return {**(snapshot.manifest.metadata.get("code", {}) if snapshot else {}), **task.code}


def bring(contents: Mapping[str, str], store: Store, folder: Path) -> None:
    """Make packages of own code importable, from verified copies below `folder`. `contents` are as keys hold them.

    Raises MissingError if the store does not have one, InputError if this process has another version of it already.
    """
    for package, content in contents.items():
        if (there := _BROUGHT.get(package)) is not None:
            if there[0] == content:
                continue
            what = f"This process has another version of '{package}' already: {there[0]}, not {content}."
            raise InputError(what, where=package, do_next="Start a new process for it.")
        digest = content_digest(content)
        source = take(store, digest, folder / package)
        if source is None:
            where = f"{store.uri}/{stored_path(digest)}"
            do_next = "Run its experiment again, which puts the code into the store; nothing that is finished is computed anew."
            raise MissingError(f"The own code '{package}' is not in the store.", where=where, do_next=do_next)
        sys.path.insert(0, str(source.resolve()))
        sys.dont_write_bytecode = True
        _BROUGHT[package] = content, source.resolve()


@contextmanager
def brought(contents: Mapping[str, str], store: Store, folder: Path) -> Iterator[None]:
    """A context in which own code can be imported, and what fails in it raises an OwnCodeError. Raises as `bring`."""
    bring(contents, store, folder)
    try:
        yield
    except EdmError:
        raise
    except Exception as error:
        own = None if shortage(error, "") else failure(error)  # while the files are there, whose lines it shows
        if own is None:
            raise
        raise own from error


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
    lacking = isinstance(error, ModuleNotFoundError)
    advice = "Install it where tasks run, or do without it. " if lacking else ""
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
