"""What saving a state says of the time that a pod has for it."""

from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from edm2core.events import parse
from edm2core.store.local import LocalStore
from edm2core.store.scratch import Scratch
from edm2core.worker.states import Background, States


def save_twice(folder: Path) -> None:
    background = Background()
    states = States(Scratch(LocalStore(folder / "store"), "scratch/trajectory/a", 1), folder, background, "a")
    for step in (1, 2):
        copies: Future[dict[str, torch.Tensor]] = Future()
        copies.set_result({"weight": torch.ones(3)})
        states.save(step, 0.5 * step, copies, [], 0.0)
    background.finish()


def test_a_grace_too_short_for_a_state_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDM2_GRACE_S", "0")
    save_twice(tmp_path)
    (warning,) = [event for line in capfd.readouterr().out.splitlines() if (event := parse(line))]
    assert warning["kind"] == "warning"
    assert "set grace_s in the cluster profile" in warning["message"]


@pytest.mark.parametrize("grace", ["3600", None])
def test_a_grace_that_is_long_enough_is_no_matter(
    grace: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDM2_GRACE_S", raising=False)
    if grace:
        monkeypatch.setenv("EDM2_GRACE_S", grace)
    save_twice(tmp_path)
    assert capfd.readouterr().out == ""
