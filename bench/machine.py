"""What the numbers were measured on."""

import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

WRITTEN = ("results.json", "RESULTS.md")


def machine() -> dict[str, str]:
    """The machine and the versions, for people."""
    facts = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()}, Python {platform.python_version()}, {' '.join(platform.libc_ver())}",
        "libraries": f"torch {torch.__version__}, numpy {np.__version__}",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    if torch.cuda.is_available():
        facts["libraries"] += f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return facts


def load() -> float:
    """Programs that wanted a core in the last minute, the benchmark among them."""
    return os.getloadavg()[0]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.processor()} ({capability})"


def commit() -> str:
    """What was measured; what a run of the benchmarks writes itself is no change of it.

    A copy of the files without their history is told by EDM2_COMMIT which commit it is of.
    """
    if known := os.environ.get("EDM2_COMMIT"):
        return known
    described = _git("describe", "--always", "--abbrev=10")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "..", *(f":!{name}" for name in WRITTEN))
    return f"{described}-dirty" if changed else described or "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False, encoding="utf-8")
    return done.stdout.strip()
