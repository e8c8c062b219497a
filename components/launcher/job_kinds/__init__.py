"""The kinds of job that the launcher can start. A new kind is one file here, its line in KINDS, and its word in a profile's `job`."""

from components.launcher.job_kinds.base import Ending, JobKind
from components.launcher.job_kinds.pytorchjob import PyTorchJob
from components.launcher.job_kinds.trainjob import TrainJob
from components.launcher.profile import Profile

__all__ = ["KINDS", "Ending", "JobKind", "kind_of"]

KINDS: tuple[JobKind, ...] = (PyTorchJob(), TrainJob())  # the preferred kind first


def kind_of(profile: Profile | None) -> JobKind:
    """The kind of job that a profile names; the preferred one if it names none, or without a profile. No cluster is asked."""
    return next((kind for kind in KINDS if profile and kind.word == profile.job), KINDS[0])
