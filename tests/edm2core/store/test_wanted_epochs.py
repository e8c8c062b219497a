from pathlib import Path

import pytest

from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import plan
from edm2core.plan.tasks import trajectory_ref
from edm2core.store import open_store
from edm2core.store.wanted_epochs import unwant, want, wanted_epochs


def test_withdrawing_wanted_epochs_leaves_those_of_other_runs(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C, digits/E]\nepochs: [1, 2]\nmetrics: []\nprobe: false\n")
    tasks = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits", "data:digits/E": "builtin:digits"})
    store, trajectories = open_store(str(tmp_path / "store")), {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}
    for trajectory in trajectories:
        want(store, trajectory, "x-123abc", (1, 2))
        want(store, trajectory, "x-123abc.kubeflow", (2, 3))
        assert wanted_epochs(store, trajectory) == {1, 2, 3}
    unwant(store, tasks, "x-123abc")
    assert [wanted_epochs(store, trajectory) for trajectory in trajectories] == [{2, 3}, {2, 3}]
    unwant(store, tasks, "x-123abc.kubeflow")
    unwant(store, tasks, "x-123abc.kubeflow")
    assert [wanted_epochs(store, trajectory) for trajectory in trajectories] == [set(), set()]


def test_a_damaged_wish_is_named_and_stops_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, trajectory = open_store(str(tmp_path)), Ref("trajectory", "k")
    want(store, trajectory, "one", (1, 2))
    want(store, trajectory, "other", (3,))
    path = f"{trajectory.scratch}/wanted/one.json"
    for data in (b"[1", b"", b"\xff", b"{}", store.read(path).replace(b"1", b"7", 1)):
        store.write(path, data)
        assert wanted_epochs(store, trajectory) == {3}
        assert path in capsys.readouterr().out
    store.write(path, b"[4, 5]")  # of an earlier version
    assert wanted_epochs(store, trajectory) == {3, 4, 5}
