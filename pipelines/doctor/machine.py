"""Checks this machine and a store before work is sent there.

As a program, `python -m pipelines.doctor.machine STORE` checks the store and prints each check as an event of the kind `check`.
"""

import json
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.own_code.requirements import missing
from edm2core.plan.experiment import Experiment
from edm2core.store import open_store

TORCH = """
import json, torch
print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.device_count() if torch.cuda.is_available() else 0]))
"""


@dataclass(frozen=True)
class Check:
    """What was seen of one thing; `do_next` says what to do about a problem."""

    state: Literal["ok", "note", "problem"]
    what: str
    do_next: str = ""


def check_here() -> Iterator[Check]:
    """Check Python, torch and the GPUs of this machine."""
    yield Check("ok", f"Python {platform.python_version()} on {platform.machine()}, {platform.system()}")
    try:
        ran = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=120, encoding="utf-8")
    except subprocess.TimeoutExpired:
        yield Check("problem", "importing torch takes more than two minutes", "Look at the disk that it is installed on.")
        return
    if ran.returncode:
        missing = "No module named 'torch'" in ran.stderr
        words = "torch is not installed: this machine can drive a cluster, not compute" if missing else ran.stderr.strip().splitlines()[-1]
        advice = "To compute here: pip install 'edm2[compute]'." if missing else "Install torch again."
        yield Check("note" if missing else "problem", words, advice)
        return
    version, cuda, gpus = json.loads(ran.stdout)
    yield Check("ok", f"torch {version}, CUDA {cuda or '-'}")
    yield Check("ok", f"torch sees {gpus} GPUs") if gpus else Check("note", "torch sees no GPU: work here runs on the CPU")


def check_own_code(experiment: Experiment) -> Iterator[Check]:
    """Check that what an experiment's own code imports is installed here. The image of a cluster's pods may hold something else."""
    for code in experiment.code.values():
        lacking = list(missing(code))
        for module, where in lacking:
            advice = "Install it, here and in the image of the pods; the compute image has what `pip install 'edm2[compute]'` brings."
            yield Check("problem", f"{where} imports '{module}', which is not installed here", advice)
        if not lacking:
            yield Check("ok", f"all that the own code '{code.name}' imports is installed here")


def check_store(uri: str) -> Iterator[Check]:
    """Check that a store can be reached, read and written, and that of two writers of one object only the first wins."""
    try:
        store, path = open_store(uri), f"doctor/{uuid.uuid4().hex}"
        yield Check("ok", f"the store {store.uri} is reached")
        try:
            first, second = store.create(path, b"1"), store.create(path, b"2")
            content = store.read(path)
        finally:
            store.delete(path)
    except EdmError as error:
        yield Check("problem", f"store: {error.what} ({error.where or uri})", error.do_next)
        return
    yield Check("ok", "the store can be written, read and deleted from")
    if (first, second, content) == (True, False, b"1"):
        yield Check("ok", "the store refuses a second writer (conditional put)")
    else:
        advice = "Use a server that honours If-None-Match: MinIO, SeaweedFS 3.9 or newer, AWS."
        yield Check("problem", "the store let a second writer replace the first one's object, so results could be overwritten", advice)


if __name__ == "__main__":
    for seen in check_store(sys.argv[1]):
        emit("check", **asdict(seen))
