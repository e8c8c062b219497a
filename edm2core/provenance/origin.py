"""Where and with what a result was made."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from edm2core.addresses import redacted
from edm2core.provenance import science

PACKAGES = ("edm2", "torch", "torchvision", "numpy", "ema-pytorch", "torch-fidelity", "scikit-learn", "kfp", "kubernetes", "minio")

MOST_CHANGES = 256 << 10  # bytes of a diff that are kept


def remember_code() -> None:
    """Take down which science this process is of, before it imports any: its source may be changed while it works."""
    science.here()
    _differences()


def changes(stage: str) -> str:
    """How a working tree differs from its revision in what makes a stage's results, as git's diff; nothing where it does not.

    Only files that git knows are in it, at most MOST_CHANGES bytes, and addresses without what may be secret in them.
    """
    found = science.here().get(stage)
    files = found.files if found and _differences() else ()
    text = redacted("".join(_differences().get(file, "") for file in files)).encode()
    if len(text) > MOST_CHANGES:
        text = text[:MOST_CHANGES].rpartition(b"\n")[0] + f"\n# {len(text)} bytes in all; the rest was left out\n".encode()
    return text.decode(errors="replace")


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
        ran = subprocess.run(command, capture_output=True, text=True, timeout=10, encoding="utf-8", env=_of_this_checkout())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ran.stdout.strip()


@cache
def _differences() -> dict[str, str]:
    """The diff of each of the science's files that is not as in the working tree's revision, by its path in the package."""
    package = science.PACKAGE
    files = sorted({file for found in science.here().values() for file in found.files})
    if not files or not (package.parent / ".git").exists():
        return {}
    command = ["git", "-C", str(package.parent), "diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/"]
    paths = [f"{package.name}/{file}" for file in files]
    try:
        ran = subprocess.run([*command, "--dst-prefix=b/", "--", *paths], capture_output=True, timeout=10, env=_of_this_checkout())
    except (OSError, subprocess.TimeoutExpired):
        return {}
    parts = re.split(r"^(?=diff --git )", ran.stdout.decode(errors="replace"), flags=re.MULTILINE)
    named = {found[1]: part for part in parts if (found := re.match(r"diff --git a/(\S+) b/", part))}
    return {file: named[path] for file, path in zip(files, paths, strict=True) if path in named}


def _of_this_checkout() -> dict[str, str]:
    """The environment without GIT_DIR and what else would have git look at another checkout, as its hooks set them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
