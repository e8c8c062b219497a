"""An experiment and its plan as one parameter: compressed, since a plan repeats itself, and without braces, which Argo would substitute."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Mapping, Sequence

from edm2core.errors import EdmError
from edm2core.plan import Task
from edm2core.store import open_store
from edm2core.store.runs import Run, record


def pack(name: str, experiment: str, tasks: Sequence[Task], absent: Mapping[str, str]) -> str:
    """The experiment's name, its file's text, its tasks and what it leaves out as a short line."""
    values = {"name": name, "experiment": experiment, "tasks": [task.to_json() for task in tasks], "absent": dict(absent)}
    return base64.b64encode(zlib.compress(json.dumps(values).encode(), 9)).decode()


def write(packed: str, run: str, store: str) -> None:
    """Record the run in the store."""
    values = json.loads(zlib.decompress(base64.b64decode(packed)))
    try:
        record(Run(run, open_store(store)), values["name"], values["experiment"], values["tasks"], values["absent"])
    except EdmError as error:
        sys.exit(str(error))
