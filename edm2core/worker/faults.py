"""Recognises a full disk and too little memory, in an error or in the last lines that a process printed."""

import errno
import os
import resource
import tempfile
from collections.abc import Iterable
from pathlib import Path

from edm2core.errors import EdmError
from edm2core.store.base import FREE_SPACE, FULL
from edm2core.words import size

GET_MEMORY = (
    "Raise what limits it (`ulimit -v` or `-u`, the container's limit, `resources` of the cluster profile), run fewer tasks at once "
    "(--jobs), or work on fewer images at once (training.micro_batch, sample.batch)."
)
MEMORY_SIGNS = (  # words for too little memory, of Python and of libraries; a C++ library prints them and ends the process
    "memoryerror",
    "std::bad_alloc",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "failed to map segment from shared object",
    "could not create a primitive",  # oneDNN, which allocates memory to make a kernel
    "thread creation failed",  # libgomp: a thread needs room for its stack
    "can't start new thread",
    "pthread_create failed",
)


def shortage(error: BaseException, stage: str) -> EdmError | None:
    """An error that says what to do, if a full disk or too little memory has caused this one; else None."""
    text = f"{type(error).__name__}: {error}"
    number = getattr(error, "errno", None)
    if number in FULL or any(f"(os error {full})" in text for full in FULL):  # libraries in Rust say the number only in the text
        return EdmError(f"The disk is full: {error}.", where=f"stage {stage}, {tempfile.gettempdir()} or the store", do_next=FREE_SPACE)
    if lacks_memory([text]) or number == errno.ENOMEM:
        limit = "this GPU" if "cuda" in text.lower() else memory_in_words()
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        return EdmError(f"There is not enough memory: {first[:200]}", where=f"stage {stage}; {limit}", do_next=GET_MEMORY)
    return None


def lacks_memory(lines: Iterable[str]) -> bool:
    """Whether a process printed that it could get no more memory."""
    return any(sign in line.lower() for line in lines for sign in MEMORY_SIGNS)


def memory_in_words() -> str:
    """The tightest limit of this process's memory: its own, the container's or the machine's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [(machine, "this machine has {}")]
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    if own != resource.RLIM_INFINITY:
        limits.append((own, "`ulimit -v` allows {}"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append((int(Path(file).read_text(encoding="utf-8")), "the container may use {}"))
        except (OSError, ValueError):
            continue  # no such limit
    least, words = min(limits)
    return words.format(size(least))
