"""Gives a task the user's own code that it runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edm2core.errors import EdmError
from edm2core.plan.tasks import Task
from edm2core.store.base import Store
from edm2core.store.own_code import bring, failure
from edm2core.worker.faults import shortage
from edm2core.worker.workspace import Input


def needed(task: Task, inputs: Mapping[str, Input]) -> dict[str, str]:
    """The own code that a task runs: its own, and that of the network of a snapshot that it reads."""
    snapshot = inputs.get("snapshot")
    return {**(snapshot.manifest.metadata.get("code", {}) if snapshot else {}), **task.code}


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
