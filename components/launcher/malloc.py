"""How the C library gives memory to a stage's process."""

from __future__ import annotations

# A step's tensors are made and freed in the same sizes again and again. By default glibc takes each large one from the kernel, which clears
# its pages, and returns it at once. Kept in the heap instead, on huge pages, they cost nothing (docs/performance.md). Other C libraries
# ignore the variable.
MALLOC = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"}
