"""Looks at this machine and at a store before work is sent there: each thing ok, worth a note, or a problem with what to do."""

from __future__ import annotations

import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edm2core.errors import EdmError
from edm2core.store import open_store

TORCH = "import torch; print(torch.__version__, torch.version.cuda or '-', torch.cuda.device_count() if torch.cuda.is_available() else 0)"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `do_next` says what to do about a problem."""

    state: Literal["ok", "note", "problem"]
    what: str
    do_next: str = ""


def check_here() -> Iterator[Check]:
    """This machine: Python, torch, GPUs."""
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
    version, cuda, gpus = ran.stdout.split()
    yield Check("ok", f"torch {version}, CUDA {cuda}")
    if gpus == "0":
        yield Check("note", "torch sees no GPU: work here runs on the CPU")
    else:
        yield Check("ok", f"torch sees {gpus} GPUs")


def check_store(uri: str) -> Iterator[Check]:
    """A store: reached, read and written, and of two writers of one object only the first wins."""
    try:
        store = open_store(uri)
        path = f"doctor/{uuid.uuid4().hex}"
        yield Check("ok", f"the store {store.uri} is reached")
        try:
            first, second = store.create(path, b"1"), store.create(path, b"2")
            kept = store.read(path)
        finally:
            store.delete(path)
    except EdmError as error:
        yield Check("problem", f"store: {error.what} ({error.where or uri})", error.do_next)
        return
    yield Check("ok", "the store can be written, read and deleted from")
    if (first, second, kept) == (True, False, b"1"):
        yield Check("ok", "the store refuses a second writer (conditional put)")
    else:
        advice = "Use a server that honours If-None-Match: MinIO, SeaweedFS 3.9 or newer, AWS."
        yield Check("problem", "the store let a second writer replace the first one's object, so results could be overwritten", advice)
