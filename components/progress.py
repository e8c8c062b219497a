"""How far a task is, by what its job says."""

from __future__ import annotations

from typing import Any

from edm2core.plan.tasks import Task


def progress_of(task: Task, event: dict[str, Any]) -> dict[str, Any]:
    """A progress event as one of this task.

    All snapshots of a training have one job, which speaks of the next that somebody wants: where that is another's, its step and pace
    say how far this one is.
    """
    if task.stage != "snapshot" or event.get("target") in (None, task.settings["epoch"]):
        return event
    epoch, steps = task.settings["epoch"], event["steps_per_epoch"]
    begin = max((wanted for wanted in task.wanted if wanted < epoch), default=0) * steps
    done = min(max(event["step"] - begin, 0), epoch * steps - begin)
    left = max(epoch * steps - event["step"], 0) * event["seconds_per_step"]
    return {**event, "target": epoch, "done": done, "total": epoch * steps - begin, "eta_s": round(left)}
