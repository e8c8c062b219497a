"""Programs and devices that some tests need beside the Python packages, and how to get them.

A test says `@pytest.mark.needs("kubectl")`. Where the thing is missing the test is left out, and the last lines of the run say so.
Where CI is set nothing that an installation can bring may be missing.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest


@dataclass(frozen=True)
class Need:
    """A thing that tests need: where it is (empty: missing), how to get it, and whether CI must have it."""

    find: Callable[[], str]
    get: str
    in_ci: bool = True

    @property
    def missing(self) -> bool:
        return not self.find()


def program(*names: str) -> Callable[[], str]:
    """Finds the first of these programs that is installed."""
    return lambda: next(filter(None, map(shutil.which, names)), "")


def minio() -> str:
    """The path of a MinIO server."""
    return os.environ.get("EDM2_TEST_MINIO") or shutil.which("minio") or ""


@cache
def gpu() -> str:
    """The name of a CUDA device. In a rehearsal of the session on a GPU its tests run on the CPU."""
    import torch

    if os.environ.get("EDM2_REHEARSE_GPU"):
        return "a rehearsal"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


@cache
def mount_namespaces() -> str:
    """The path of unshare, if this user may make mount namespaces."""
    path = shutil.which("unshare")
    return path if path and subprocess.run([path, "-rm", "true"], capture_output=True).returncode == 0 else ""


MINIO = (pytest.mark.needs("minio"), pytest.mark.slow)  # make test-all tries it beside SeaweedFS, which make test tries as well
CHROMIUM = program("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NEEDS = {
    "chromium": Need(CHROMIUM, "apt-get install chromium"),
    "minio": Need(minio, "put MinIO's server on PATH, or its path into EDM2_TEST_MINIO", in_ci=bool(os.environ.get("EDM2_TEST_MINIO"))),
    "kubectl": Need(program("kubectl"), "apt-get install kubernetes-client", in_ci=False),
    "openssl": Need(program("openssl"), "apt-get install openssl"),
    "mount namespaces": Need(mount_namespaces, "a Linux whose users may make them (unshare -rm)", in_ci=False),
    "gpu": Need(gpu, "a CUDA device", in_ci=False),
}
