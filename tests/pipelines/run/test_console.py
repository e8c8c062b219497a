import io
from dataclasses import replace

import pytest
from rich.console import Console

from edm2core.errors import EdmError
from edm2core.plan.manifest import Manifest
from edm2core.plan.tasks import Task
from pipelines.run import console as view
from pipelines.run.console import View
from pipelines.run.remaining import Left, Remaining
from pipelines.run.task_scheduler import TaskChange

TASK = Task("metrics", 1, {}, {}, "k", "C · FD at epoch 1")
PROGRESS = {"kind": "progress", "done": 1, "total": 4, "loss": 0.5, "images_per_s": 100.0, "eta_s": 7}


def printed(*outcomes: TaskChange, **metadata: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    shown = View([TASK], console, Remaining([TASK], {}, 1))
    shown.changed(TASK, TaskChange("running"))
    shown.event(TASK, PROGRESS)
    if metadata:
        shown.made(TASK, Manifest("metrics", 1, "k", "t", {}, {}, {}, "a", {}, metadata))
    for outcome in outcomes:
        shown.changed(TASK, outcome)
    console.print(shown.summary())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_a_task_that_takes_its_time_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "25%" not in printed()
    monkeypatch.setattr(view, "QUIET_S", 0.0)
    assert "  C · FD at epoch 1: 25% · loss 0.5 · 100 images/s · 7 s left\n" in printed()


def test_a_finished_task_says_what_it_found() -> None:
    assert "✓ C · FD at epoch 1 · 3 s · fd_digits 76.36\n" in printed(TaskChange("done", None, 3.0), values={"fd_digits": 76.3567})


def test_a_finished_training_says_its_loss_and_its_speed() -> None:
    assert "✓ C · FD at epoch 1 · 3 s · loss 0.5 · 100 images/s\n" in printed(TaskChange("done", None, 3.0))


def test_a_failed_task_says_why_and_the_summary_counts_it() -> None:
    text = printed(TaskChange("failed", EdmError("The disk is full."), 2.0))
    assert "✗ C · FD at epoch 1 · 2 s\n  The disk is full.\n" in text
    assert "1 of 1 tasks ended (1 failed) · 0 s" in text


def test_what_was_there_already_only_counts() -> None:
    lines = printed(TaskChange("reused")).splitlines()
    assert lines == ["1 of 1 tasks ended (1 reused) · 0 s"]


def test_what_could_not_start_only_counts() -> None:
    assert printed(TaskChange("skipped")).splitlines() == ["1 of 1 tasks ended (1 skipped) · 0 s"]


def test_a_task_that_is_done_and_then_reused_counts_once() -> None:
    assert "1 of 1 tasks ended (1 done) · 0 s" in printed(TaskChange("done", None, 3.0), TaskChange("reused"))


def test_tasks_that_come_later_count_too() -> None:
    shown = View([TASK], Console(file=io.StringIO()), Remaining([TASK], {}, 1))
    shown.add([replace(TASK, key="other")])
    assert "0 of 2 tasks ended" in shown.summary()


class Says(Remaining):
    """What a run's rest takes, as the test has it."""

    def __init__(self, left: Left | None) -> None:
        super().__init__([TASK], {}, 1)
        self._left = left

    def left(self) -> Left | None:
        return self._left


def on_terminal(left: Left | None) -> str:
    """The first frame while one of two tasks runs and the other is done."""
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    shown = View([TASK, replace(TASK, key="other")], console, Says(left))
    shown.changed(replace(TASK, key="other"), TaskChange("reused"))
    shown.changed(TASK, TaskChange("running"))
    shown.event(TASK, PROGRESS)
    shown._begun -= 30.0
    console.print(shown._table())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_on_a_terminal_a_task_and_the_run_say_how_far_they_are() -> None:
    run, task = on_terminal(Left(90.0, least=False)).splitlines()
    assert run.startswith("━" * 6)
    assert " 25%  1 of 2 tasks ended (1 reused) · 30 s · about 1 min 30 s left" in run
    assert " 25%  loss 0.5 · 100 images/s · 7 s left" in task


def test_the_bar_of_a_run_is_of_tasks_while_some_of_the_rest_is_unknown() -> None:
    """By time it would be nearly full, since what is unknown counts as nothing."""
    assert " 50%  1 of 2 tasks ended (1 reused) · 30 s · more than 2 s left" in on_terminal(Left(2.0, least=True))
    assert " 50%  1 of 2 tasks ended (1 reused) · 30 s\n" in on_terminal(None).replace(" \n", "\n")


@pytest.mark.parametrize("least", [True, False])
def test_less_than_a_second_is_not_said_to_be_left(least: bool) -> None:
    assert "left" not in on_terminal(Left(0.4, least)).splitlines()[0]
