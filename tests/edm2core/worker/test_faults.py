"""What a machine lacks is told from real errors and real processes' last words."""

import resource
import subprocess
import sys

import numpy as np
import pytest
import torch

from edm2core.worker.faults import lacks_memory, memory_in_words, shortage

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))\n"


@pytest.mark.parametrize(
    "ask", [lambda: bytearray(1 << 62), lambda: np.empty(1 << 52), lambda: torch.empty(1 << 52)], ids=["python", "numpy", "torch"]
)
def test_too_little_memory_is_said_in_words_with_what_limits_it(ask: object) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()  # type: ignore[operator]
    error = shortage(caught.value, "sample")
    assert error is not None
    assert "not enough memory" in str(error)
    assert "sample.batch" in error.do_next
    assert error.where.startswith("stage sample; ")


def test_a_library_that_a_limit_keeps_from_being_loaded_is_a_matter_of_memory() -> None:
    done = subprocess.run([sys.executable, "-c", f"{LIMITED}import torch"], capture_output=True, text=True)
    assert done.returncode != 0
    assert lacks_memory(done.stderr.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: could not create a primitive",
        "libgomp: Thread creation failed: Resource temporarily unavailable",
        "RuntimeError: can't start new thread",
        "OpenBLAS blas_thread_init: pthread_create failed for thread 1 of 2: Resource temporarily unavailable",
    ],
)
def test_what_libraries_say_under_a_limit_without_the_word_is_a_matter_of_memory(line: str) -> None:
    assert lacks_memory([line])


@pytest.mark.parametrize("line", ["ValueError: a fault", "ModuleNotFoundError: No module named 'torch'", ""])
def test_other_ends_are_not(line: str) -> None:
    assert not lacks_memory([line])
    assert shortage(ValueError(line), "sample") is None


def test_the_tightest_limit_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{LIMITED}from edm2core.worker.faults import memory_in_words\nprint(memory_in_words())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "`ulimit -v` allows 1.0 GB"
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        assert "ulimit" not in memory_in_words()
