"""The origin of a result: the code's version, the machine, and the packages that made it."""

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

PACKAGE_ROOT = science.PACKAGE.parent  # of a checkout, if it has a .git
PACKAGES = ("edm2", "torch", "torchvision", "numpy", "ema-pytorch", "torch-fidelity", "scikit-learn", "kfp", "kubernetes", "minio")
MOST_CHANGES = 256 << 10  # most bytes of a diff that are stored


def remember_code() -> None:
    """Record the science of this process before it imports any, since its source may change while it works."""
    science.here()
    _differences()


def changes(stage: str) -> str:
    """How the files that make a stage's results differ from their revision, as git's diff; an empty string if they do not.

    It holds only files that git tracks, at most MOST_CHANGES bytes, and addresses without their secrets.
    """
    code = science.here().get(stage)
    text = redacted("".join(_differences().get(file, "") for file in (code.files if code else ()))).encode()
    if len(text) > MOST_CHANGES:
        text = text[:MOST_CHANGES].rpartition(b"\n")[0] + f"\n# {len(text)} bytes in all; the rest was left out\n".encode()
    return text.decode(errors="replace")


@cache
def code_version() -> str:
    """The package's version and git revision. In an image, which has no checkout, `EDM2_REVISION` says the revision."""
    revision = os.environ.get("EDM2_REVISION") or _git("describe", "--always", "--dirty", "--abbrev=12").strip()
    return f"{_version('edm2')}+{revision or 'unknown'}"


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


def host_and_device() -> str:
    """This process's host and device, in words."""
    return f"{socket.gethostname()} ({_device()})"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def _differences() -> dict[str, str]:
    """The diff of each of the science's files that differs from the working tree's revision, by its path in the package."""
    files = sorted({file for code in science.here().values() for file in code.files})
    if not files:
        return {}
    paths = [f"{science.PACKAGE.name}/{file}" for file in files]
    options = ["--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/"]
    parts = re.split(r"^(?=diff --git )", _git("diff", "HEAD", *options, "--", *paths), flags=re.MULTILINE)
    by_path = {header[1]: part for part in parts if (header := re.match(r"diff --git a/(\S+) b/", part))}
    return {file: by_path[path] for file, path in zip(files, paths, strict=True) if path in by_path}


def _git(*arguments: str) -> str:
    """What git prints about this checkout; an empty string where there is no checkout or no git.

    Git's hooks set GIT_DIR and more, by which it would look at another checkout: these variables are left out.
    """
    if not (PACKAGE_ROOT / ".git").exists():
        return ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        command = ["git", "-C", str(PACKAGE_ROOT), *arguments]
        return subprocess.run(command, capture_output=True, timeout=10, env=environment).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{_cpu_model() or f'{platform.machine()} CPU'}, {os.cpu_count()} cores"


def _cpu_model() -> str:
    """The CPU's name as Linux has it; "" where it has none, as on many ARM machines, or the system is another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
