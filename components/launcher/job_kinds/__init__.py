"""The kinds of job that the launcher can start. A new kind is one file here, and its line in KINDS."""

from components.launcher.job_kinds.base import Ending, JobKind
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.profile import Profile

__all__ = ["KINDS", "Ending", "JobKind", "kind_of"]

KINDS: tuple[JobKind, ...] = (PyTorchJob(),)


def kind_of(_profile: Profile | None) -> JobKind:
    """The kind of job that a profile's cluster runs; without a profile, the usual kind."""
    return KINDS[0]
