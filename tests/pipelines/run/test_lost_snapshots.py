from __future__ import annotations

from pathlib import Path

import pytest

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store.local import LocalStore
from pipelines.run.lost_snapshots import gone, refuse

TEXT = "name: x\nrecipes: [digits/G]\nepochs: [10, 20]\nmetrics: [fd]\nsample: {count: 100}\n"


def test_a_snapshot_that_something_was_made_of_and_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TEXT)
    tasks = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/G": "builtin:digits"})
    store = LocalStore(tmp_path / "store")

    def find(stage: str, epoch: int) -> Task:
        return next(task for task in tasks if task.stage == stage and task.subject.epoch == epoch)

    assert gone(tasks, store) == []  # nothing was made yet
    for stage in ("snapshot", "sample"):
        store.write(find(stage, 10).ref.manifest, b"{}")
    assert gone(tasks, store) == []
    store.delete(find("snapshot", 10).ref.manifest)
    store.write(find("snapshot", 20).ref.manifest, b"{}")
    assert gone(tasks, store) == [find("snapshot", 10)]
    with pytest.raises(InputError, match="train to epoch 10") as caught:
        refuse(gone(tasks, store), store)
    assert "--train-again" in str(caught.value)
    refuse([], store)
