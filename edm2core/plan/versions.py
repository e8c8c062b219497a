"""The version of a task's numbers: that of its stage, and how many later changes concern its settings.

A change of numbers gives new keys to the tasks whose numbers it can change, and to those that need them. A change that concerns only
some settings is a line of `CHANGES`. One that concerns all raises the stage's version in the table (`stages.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from edm2core.plan.stages import STAGES

TaskSettings = Mapping[str, Any]  # a task's settings as JSON holds them


class Change(NamedTuple):
    """A change of a stage's numbers: what changed, and whether it concerns a task with these settings."""

    stage: str
    words: str
    concerns: Callable[[TaskSettings], bool]


def measures(*metrics: str) -> Callable[[TaskSettings], bool]:
    """Whether a task of stage `metrics` measures one of these."""
    return lambda settings: not set(metrics).isdisjoint(settings["metrics"])


CHANGES: tuple[Change, ...] = (
    Change("prepare", "transparency stands on a colour; splits, NVlabs' archives and leftovers are told", lambda s: "revised" in s),
    Change("metrics", "KID's standard error is a jackknife's over samples", measures("kid")),
    Change("metrics", "the Inception score's standard error has n - 1 below it", measures("is")),
    Change(
        "metrics",
        "balls' radii and what lies in them are measured by the same distances, in double precision about the mean",
        measures("precision", "recall", "density", "coverage"),
    ),
    Change("snapshot", "dropout's masks are keyed by image of the global batch", lambda s: s["network"].get("dropout", 0) > 0),
    Change("calibration", "the error's blocks are of images in random order", lambda s: s["against"] != "statistics"),
    Change("probe", "the error over test images is that of the mean over several seeds", lambda s: len(s["seeds"]) > 1),
    Change("ema", "narrow averages are of three bytes a number, or refused where rounding would show", lambda s: s["sigma_rel"] < 0.035),
)
"""In the order of time. None is ever removed, since versions count them."""


def version_of(stage: str, settings: TaskSettings) -> int:
    """The version of a task's numbers. It rises with every change that concerns the task's settings, and with no other."""
    return STAGES[stage].version + sum(change.stage == stage and change.concerns(settings) for change in CHANGES)
