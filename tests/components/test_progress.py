"""How far a snapshot's task is, whatever snapshot its training is on the way to."""

from typing import Any

import pytest

from components.execute import progress_of
from edm2core.plan.tasks import Task

EVENT = {"kind": "progress", "target": 10, "steps_per_epoch": 100, "seconds_per_step": 0.5, "step": 500}
OWN = {"done": 500, "total": 1000, "eta_s": 250}


def task(epoch: int) -> Task:
    return Task("snapshot", 1, {"epoch": epoch}, {}, "k", "t", wanted=(10, 20, 60))


@pytest.mark.parametrize(
    ("epoch", "step", "found"),
    [(10, 500, OWN), (20, 500, {"done": 0, "total": 1000, "eta_s": 750}), (60, 4000, {"done": 2000, "total": 4000, "eta_s": 1000})],
)
def test_a_snapshot_is_as_far_as_its_own_part_of_the_training(epoch: int, step: int, found: dict[str, Any]) -> None:
    event = {**EVENT, **OWN, "step": step}
    assert progress_of(task(epoch), event).items() >= found.items()


def test_other_events_are_as_they_were() -> None:
    event = {"kind": "progress", "done": 1, "total": 4}
    assert progress_of(Task("sample", 1, {}, {}, "k", "t"), event) == progress_of(task(20), event) == event
