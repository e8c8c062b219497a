"""Where and with what a result was made."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("edm2", "torch", "torchvision", "numpy", "ema-pytorch", "torch-fidelity", "scikit-learn", "kfp", "kubernetes", "minio")


@cache
def code_version() -> str:
    """The package's version and git revision; `EDM2_REVISION` says the revision where there is no checkout (in an image)."""
    return f"{_version('edm2')}+{os.environ.get('EDM2_REVISION') or _revision() or 'unknown'}"


def describe(started: float) -> dict[str, Any]:
    """Provenance of work that began at `started` (seconds since 1970)."""
    return {
        "code_version": code_version(),
        "host": socket.gethostname(),
        "device": _device(),
        "started": round(started, 1),
        "seconds": round(time.time() - started, 1),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def place() -> str:
    """This process's host and device, for a person."""
    return f"{socket.gethostname()} ({_device()})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _revision() -> str:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip()


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
