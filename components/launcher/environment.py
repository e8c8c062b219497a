"""The environment of processes that compute: what they inherit, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping

LAUNCHERS = ("PET_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_")
"""Beginnings of another launcher's variables, which would make a process wait for others that do not belong to its job."""
ALIKE = {
    "PYTHONSAFEPATH": "1",  # import no library from the folder in which a command runs
    "PYTHONUTF8": "1",  # read paths and texts alike in any locale
}
# The tensors of a training step are allocated and freed in the same sizes again and again. By default glibc takes each large one from the
# kernel, which clears its pages, and returns it at once. Kept in the heap instead, on huge pages, they cost nothing (docs/performance.md).
# Other C libraries ignore the variable.
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}


def of_one_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for processes that work together on this machine alone."""
    left_out = (*LAUNCHERS, "PYTHONWARNINGS")  # which can turn a library's warning into an error
    return {name: value for name, value in environ.items() if not name.startswith(left_out)} | ALIKE
