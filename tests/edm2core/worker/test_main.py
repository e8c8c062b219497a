import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch.distributed as dist

from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, own_key
from edm2core.stages import prepare
from edm2core.store import Store, open_store
from edm2core.worker import heartbeat, main, signals
from edm2core.worker.exit_codes import BAD_INPUT, FAILED
from edm2core.worker.main import make, serve, work_folder
from edm2core.worker.workspace import Workspace


def test_a_task_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("{name: x, recipes: [digits/C], epochs: [1], metrics: [], probe: false}")
    task = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[0].to_json()
    task["settings"]["from_next_year"] = 1
    command = [sys.executable, "-m", "edm2core.stages.prepare", json.dumps(task), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == BAD_INPUT
    assert "another version of this program: from_next_year" in done.stderr
    assert "make images" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("stage", "number"), [("prepare", 0), ("train", 1)])
def test_numbers_of_another_version_are_not_made_under_its_key(stage: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("{name: x, recipes: [digits/C], epochs: [1], metrics: [], probe: false}")
    task = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[number]
    older = replace(task, version=0, key=own_key(replace(task, version=0)))
    command = [sys.executable, "-m", f"edm2core.stages.{stage}", json.dumps(older.to_json()), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == BAD_INPUT
    assert f"asks for version 0 of the numbers of '{task.stage}'; this program makes version {task.version}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_process_that_lost_its_lease_removes_nothing_of_its_successors(tmp_path: Path) -> None:
    store, ref = open_store(str(tmp_path)), Ref("probe", "k")
    with work_folder(store, ref, 0, 1) as lost:
        (lost / "features").write_text("old")
        with work_folder(store, ref, 0, 2) as mine, work_folder(store, ref, 1, 2) as other_rank:
            assert list(mine.iterdir()) == []
            assert not lost.exists()  # what an earlier one left goes
            (mine / "features").write_text("new")
            with work_folder(store, ref, 0, 1):  # it wakes up, and ends
                pass
            assert (mine / "features").read_text() == "new"
            assert other_rank.exists()


def test_stores_on_one_machine_do_not_share_the_folders_of_their_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDM2_WORK", str(tmp_path))
    places = [("http://one:9000", "minio://edm2/x"), ("http://two:9000", "minio://edm2/x"), ("http://one:9000", "minio://edm2/y")]
    stores = [cast(Store, SimpleNamespace(endpoint=endpoint, uri=uri)) for endpoint, uri in places]
    with ExitStack() as still_at_work:
        folders = [still_at_work.enter_context(work_folder(store, Ref("prepare", "k"), 0, 1)) for store in stores]
        with work_folder(stores[0], Ref("prepare", "k"), 0, 2):
            assert [folder.exists() for folder in folders] == [False, True, True]  # only its own store's earlier one is removed


def test_what_another_process_commits_while_the_lease_is_taken_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e.yaml").write_text("{name: x, recipes: [digits/C], epochs: [1], metrics: [], probe: false}")
    task = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[0]
    store, claim, done = open_store(str(tmp_path / "store")), main.claim, list[Workspace]()

    @contextmanager
    def after_the_other(*arguments: Any) -> Iterator[int]:
        monkeypatch.setattr(main, "claim", claim)
        make(task, store, prepare.run)
        with claim(*arguments) as generation:
            yield generation

    monkeypatch.setattr(main, "claim", after_the_other)
    make(task, store, done.append)
    assert done == []


def test_a_disk_that_is_full_is_said_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    task = Task("metrics", 1, {}, {}, "k", "C · FD at epoch 1")
    monkeypatch.setattr(sys, "argv", ["stage", json.dumps(task.to_json()), "--store", str(tmp_path)])
    monkeypatch.setattr(signals, "install", lambda: None)
    monkeypatch.setattr(signals, "die_with_parent", lambda: None)
    of_rust = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    for error in (OSError(errno.ENOSPC, "No space left on device"), of_rust):

        def work(*_: object, error: Exception = error) -> None:
            raise error

        assert serve(work, "metrics") == FAILED
        said = capsys.readouterr()
        assert "The disk is full: " in said.err
        assert "Traceback" not in said.err + said.out


def test_processes_do_not_wait_for_one_that_never_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    here = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(agent.port)}
    for name, value in {**here, "TORCHELASTIC_USE_AGENT_STORE": "True", "EDM2_BEAT": str(tmp_path / "beat")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(main, "BEGINS_S", 0.2)
    with pytest.raises(dist.DistError), main.processes():
        pass
    assert heartbeat.silence(tmp_path / "beat") == 0
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + main.MEETS_S)
    assert heartbeat.silence(tmp_path / "beat") > 0
