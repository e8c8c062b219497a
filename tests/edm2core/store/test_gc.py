from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edm2core.config.experiment import load_experiment
from edm2core.errors import IntegrityError
from edm2core.manifest import FileRecord, Manifest, Ref
from edm2core.plan import Task, plan, trajectory_ref
from edm2core.stages.main import work_folder
from edm2core.store.base import Entry
from edm2core.store.gc import DAY_S, apply, plan_gc
from edm2core.store.leases import acquire
from edm2core.store.local import LocalStore
from edm2core.store.results import commit, load, verify
from edm2core.store.scratch import Scratch

SOURCE = "ab" * 32


class Aged(LocalStore):
    """Everything is eight days old but what is called young."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.young: set[str] = set()

    def list(self, prefix: str) -> Iterator[Entry]:
        for entry in super().list(prefix):
            yield entry._replace(age_s=1.0 if any(entry.path.startswith(path) for path in self.young) else 8 * DAY_S)


@pytest.fixture
def aged(tmp_path: Path) -> Aged:
    return Aged(tmp_path / "store")


def finish(store: LocalStore, ref: Ref, attempt: str = "attempt", **metadata: str) -> Manifest:
    store.write(f"{ref.folder}/{attempt}/file", b"12345")
    record = FileRecord(5, "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5")
    manifest = Manifest(ref.stage, 1, ref.key, "", {}, {}, {}, attempt, {"file": record}, metadata)
    return commit(store, manifest)


def record_run(store: LocalStore, tmp_path: Path, run: str, recipe: str) -> list[Task]:
    """A run of a small experiment whose tasks are all finished, with averages and a state of each training."""
    file = tmp_path / f"{run}.yaml"
    file.write_text(f"name: {run}\nrecipes: [{recipe}]\nepochs: [1, 2]\nmetrics: [fd]\n")
    tasks = plan(load_experiment(file), {f"data:{recipe}": f"sha256:{SOURCE}"})
    store.write(f"runs/{run}/plan.json", json.dumps({"name": run, "tasks": [task.to_json() for task in tasks]}).encode())
    for task in tasks:
        finish(store, task.ref)
        if task.stage == "snapshot":
            trajectory = trajectory_ref(task)
            Scratch(store, trajectory.scratch, 1).put("state-0", b"state")
            finish(store, Ref("average", f"of-{trajectory.key}"), trajectory=trajectory.key)
    store.write(f"sources/{SOURCE}/archive", b"data")
    return tasks


def paths(store: LocalStore) -> set[str]:
    return {entry.path for entry in store.list("")}


def test_all_that_a_run_names_stays_however_old(aged: Aged, tmp_path: Path) -> None:
    record_run(aged, tmp_path, "kept", "digits/C")
    before = paths(aged)
    assert plan_gc(aged) == []
    assert apply(aged, []) == 0
    assert paths(aged) == before


def test_what_only_a_removed_run_named_goes_and_what_is_shared_stays(aged: Aged, tmp_path: Path) -> None:
    kept = record_run(aged, tmp_path, "kept", "digits/C")
    before = paths(aged)
    other = record_run(aged, tmp_path, "removed", "digits/E")
    shared = {task.ref for task in kept} & {task.ref for task in other}
    assert shared
    aged.delete("runs/removed/plan.json")
    removals = plan_gc(aged)
    only_other = {f"{task.ref.folder}/" for task in other if task.ref not in shared}
    assert only_other < {removal.path for removal in removals}
    assert sum(removal.size for removal in removals) == sum(aged.stat(path).size for path in paths(aged) - before)  # type: ignore[union-attr]
    assert all(removal.why for removal in removals)
    assert apply(aged, removals) == sum(removal.size for removal in removals)
    assert paths(aged) == before
    for ref in shared:
        manifest = load(aged, ref)
        assert manifest is not None
        assert verify(aged, manifest) == []


def test_what_was_written_within_the_week_stays(aged: Aged) -> None:
    for area in ("results/s/k/a", "scratch/s/k", "sources/x"):
        aged.write(f"{area}/old", b"")
        aged.write(f"{area}/new", b"")
        aged.young.add(f"{area}/new")
    assert plan_gc(aged) == []
    assert [removal.path for removal in plan_gc(aged, days=0)] == ["results/s/k/", "scratch/s/k/", "sources/x/"]


def test_a_lease_that_is_held_protects(aged: Aged) -> None:
    ref = Ref("trajectory", "k")
    Scratch(aged, ref.scratch, 1).put("state-0", b"")
    aged.write(f"{ref.folder}/attempt/file", b"")
    aged.young.add("leases/trajectory/k/")
    with acquire(aged, ref):
        assert plan_gc(aged) == []
    removed = [removal.path for removal in plan_gc(aged)]
    assert removed == ["results/trajectory/k/", "scratch/trajectory/k/"]
    aged.young.clear()
    assert [removal.path for removal in plan_gc(aged)] == ["leases/trajectory/k/", *removed]


def test_what_an_extractor_was_held_to_stays_as_long_as_the_extractor(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "kept", "digits/C")
    extractor = next(task.ref for task in tasks if task.stage == "extractor")
    for key, held in (("ours", extractor), ("others", Ref("extractor", "gone"))):
        ref = Ref("calibration", key)
        aged.write(f"{ref.folder}/a/calibration.json", b"{}")
        commit(aged, Manifest("calibration", 1, key, "", {}, {"extractor": str(held)}, {}, "a", {}))
    assert [removal.path for removal in plan_gc(aged)] == ["results/calibration/others/"]


def test_what_a_killed_process_had_in_its_folder_goes_unless_it_is_at_work(aged: Aged) -> None:
    ref = Ref("probe", "0a1b")
    with acquire(aged, ref) as lease, work_folder(aged, ref, 0, lease.generation) as folder:
        (folder / "features.f16").write_bytes(b"12345")
        aged.young.add("leases/probe/0a1b/")
        assert plan_gc(aged) == []
        killed = folder.with_name("probe-0c1d-0-1")
        shutil.copytree(folder, killed)
        (removal,) = plan_gc(aged)
        assert (removal.path, removal.size) == (f"work/{killed.name}/", 5)
        apply(aged, [removal])
        assert (folder / "features.f16").exists()
        assert not killed.exists()


def test_the_count_of_generations_stays_as_long_as_pieces_of_theirs(aged: Aged, tmp_path: Path) -> None:
    task = next(task for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "snapshot")
    acquire(aged, trajectory_ref(task)).release()
    assert plan_gc(aged) == []


def test_attempts_that_lost_go_from_a_kept_result(aged: Aged, tmp_path: Path) -> None:
    ref = record_run(aged, tmp_path, "kept", "digits/C")[0].ref
    finish(aged, ref, "loser")
    (removal,) = plan_gc(aged)
    assert (removal.path, removal.size) == (f"{ref.folder}/loser/", 5)
    apply(aged, [removal])
    manifest = load(aged, ref)
    assert manifest is not None
    assert verify(aged, manifest) == []


def test_an_attempt_of_an_unfinished_task_is_garbage_and_its_scratch_is_not(aged: Aged, tmp_path: Path) -> None:
    ref = next(task.ref for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "sample")
    aged.delete(ref.manifest)
    Scratch(aged, ref.scratch, 1).put("00000", b"shard")
    assert [removal.path for removal in plan_gc(aged)] == [f"{ref.folder}/attempt/"]
    finish(aged, ref)
    assert [removal.path for removal in plan_gc(aged)] == [f"{ref.scratch}/"]


def test_nothing_goes_while_a_plan_cannot_be_read(aged: Aged) -> None:
    aged.write("results/s/k/a/file", b"")
    for data in (b"", b"[]", b'{"tasks": [{}]}', b"\xff"):
        aged.write("runs/damaged/plan.json", data)
        with pytest.raises(IntegrityError) as caught:
            plan_gc(aged)
        assert "runs/damaged/plan.json" in caught.value.where


def test_what_a_run_began_to_need_since_the_plan_stays(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "run", "digits/C")
    plan_json = aged.read("runs/run/plan.json")
    aged.delete("runs/run/plan.json")
    removals = plan_gc(aged)
    assert removals
    aged.write("runs/run/plan.json", plan_json)
    assert apply(aged, removals) == 0
    assert all(load(aged, task.ref) for task in tasks)


def test_a_manifest_goes_before_its_files(tmp_path: Path) -> None:
    deleted: list[str] = []

    class Watched(Aged):
        def delete(self, path: str) -> None:
            deleted.append(path)
            super().delete(path)

    store = Watched(tmp_path)
    finish(store, Ref("sample", "k"), "0-attempt")
    apply(store, plan_gc(store))
    assert deleted[0] == "results/sample/k/manifest.json"
    assert paths(store) == set()


def test_a_source_that_is_one_object_goes_as_such(aged: Aged) -> None:
    aged.write("sources/abc", b"123")
    (removal,) = plan_gc(aged)
    assert removal.path == "sources/abc"
    assert apply(aged, [removal]) == 3
    assert paths(aged) == set()


def test_a_source_stays_as_long_as_a_plan_names_it_by_however_short_a_digest(aged: Aged) -> None:
    digests = {"md5:" + "1" * 32: "", "sha256:" + "2" * 64: ".tar", "sha256:6726825d": ""}
    tasks = [Task("prepare", 1, {"digest": digest}, {}, "k", "") for digest in digests]
    aged.write("runs/kept/plan.json", json.dumps({"name": "kept", "tasks": [task.to_json() for task in tasks]}).encode())
    for digest, ending in digests.items():
        aged.write(f"sources/{digest.partition(':')[2]}{ending}", b"")
    assert plan_gc(aged) == []
    aged.delete("runs/kept/plan.json")
    assert len(plan_gc(aged)) == 3


def test_leftovers_of_interrupted_writes_go(aged: Aged) -> None:
    aged.write("runs/x/log", b"")
    (aged.root / ".tmp" / "left").write_bytes(b"123")
    assert apply(aged, [], days=7) == 0
    assert apply(aged, [], days=-1) == 3


def test_event_files_stay_as_long_as_a_run_names_their_training(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "one", "digits/C")
    path = f"{trajectory_ref(next(t for t in tasks if t.stage == 'snapshot')).scratch}/tensorboard/00001-events.out.tfevents.1"
    aged.write(path, b"events")
    apply(aged, plan_gc(aged))
    assert aged.read(path) == b"events"
    aged.delete("runs/one/plan.json")
    apply(aged, plan_gc(aged))
    assert aged.stat(path) is None
