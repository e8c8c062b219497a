import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edm2core.config.settings import TrainingSettings
from edm2core.errors import IntegrityError, StoreError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import FileRecord, Manifest, Ref, diff_path
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, average_ref, trajectory_ref
from edm2core.store import gc
from edm2core.store.base import Entry
from edm2core.store.gc import DAY_S, apply, plan_gc
from edm2core.store.leases import GC, Busy, acquire
from edm2core.store.local import LocalStore
from edm2core.store.plans import read_plan, write_plan
from edm2core.store.process import Process
from edm2core.store.results import commit, load, verify
from edm2core.store.runs import Run, record
from edm2core.store.scratch import Scratch
from edm2core.worker.main import work_folder
from tests.waiting import wait_until

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
    write_plan(store, run, run, tasks, {})
    for task in tasks:
        finish(store, task.ref)
        if task.stage == "snapshot":
            trajectory = trajectory_ref(task)
            Scratch(store, trajectory.scratch, 1).put("state-0", b"state")
            finish(store, Ref("average", f"of-{trajectory.key}"), trajectory=trajectory.key)
    store.write(f"sources/{SOURCE}/archive", b"data")
    return tasks


def paths(store: LocalStore) -> set[str]:
    """All but the lease that gc itself takes."""
    return {entry.path for entry in store.list("") if not entry.path.startswith("leases/gc/")}


def test_all_that_a_run_names_stays_however_old(aged: Aged, tmp_path: Path) -> None:
    record_run(aged, tmp_path, "kept", "digits/C")
    before = paths(aged)
    assert plan_gc(aged) == []
    assert apply(aged) == ([], 0)
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
    assert apply(aged) == (removals, sum(removal.size for removal in removals))
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
        apply(aged)
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
    apply(aged)
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


def test_what_a_live_lease_could_still_commit_stays_at_any_age(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "kept", "digits/C")
    snapshot = next(task for task in tasks if task.stage == "snapshot")
    trajectory = trajectory_ref(snapshot)
    aged.young.add(f"leases/trajectory/{trajectory.key}/")
    aged.write(f"sources/{'cd' * 32}", b"being uploaded")
    aged.young.add(f"leases/source/{'cd' * 32}/")
    for ref in (snapshot.ref, Ref("snapshot", "wanted-by-nobody-yet"), Ref("average", "next")):
        aged.delete(ref.manifest)
        aged.write(f"{ref.folder}/attempt/weights", b"")  # uploaded, and about to be committed
    finish(aged, Ref("snapshot", "just-committed"), trajectory=trajectory.key)
    with acquire(aged, trajectory), acquire(aged, Ref("source", "cd" * 32)):
        assert plan_gc(aged, days=0) == []
        before = paths(aged)
        assert apply(aged, days=0) == ([], 0)
        assert paths(aged) == before
    gone = {removal.path for removal in plan_gc(aged, days=0)}
    assert gone == {
        "results/average/next/",
        "results/snapshot/just-committed/",
        "results/snapshot/wanted-by-nobody-yet/",
        f"{snapshot.ref.folder}/attempt/",
        f"sources/{'cd' * 32}",
        f"leases/source/{'cd' * 32}/",
    }


def test_a_lease_that_was_silent_may_wake_up_within_the_hour(aged: Aged, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = Ref("sample", "k")
    aged.write(f"{ref.folder}/attempt/file", b"")
    acquire(aged, ref)._stop.set()  # never given back, and silent
    for age, stays in ((10.0, True), (3000.0, True), (4000.0, False)):
        monkeypatch.setattr(aged, "list", lambda prefix, age=age: (e._replace(age_s=age) for e in LocalStore.list(aged, prefix)))
        assert (plan_gc(aged, days=0) == []) == stays, age


def test_what_was_committed_and_given_back_while_the_store_was_listed_stays(aged: Aged, tmp_path: Path) -> None:
    """Its files are seen before its manifest is there, and its lease is no more when leases are read again."""
    ref = next(task.ref for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "sample")
    aged.delete(ref.manifest)
    aged.young.add("leases/sample/")

    class Meanwhile(Aged):
        def list(self, prefix: str) -> Iterator[Entry]:
            yield from super().list(prefix)
            if prefix == "results/" and not self.stat(ref.manifest):
                finish(self, ref)
                lease.release()

    store = Meanwhile(aged.root)
    store.young = aged.young
    lease = acquire(store, ref)
    assert apply(store, days=0) == ([], 0)
    manifest = load(store, ref)
    assert manifest is not None
    assert verify(store, manifest) == []


def test_a_result_whose_lease_came_and_went_between_the_two_readings_of_leases_stays(aged: Aged, tmp_path: Path) -> None:
    """No reading sees its lease held; that it is another one than before tells that somebody worked."""
    ref = next(task.ref for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "sample")
    aged.delete(ref.manifest)
    aged.delete(f"{ref.folder}/attempt/file")
    aged.young.add("leases/sample/")
    acquire(aged, ref).release()  # by a run before

    class Meanwhile(Aged):
        def list(self, prefix: str) -> Iterator[Entry]:
            begins = prefix == "results/" and not self.stat(ref.manifest)
            if begins:
                lease = acquire(aged, ref)
                self.write(f"{ref.folder}/attempt/file", b"12345")
            yield from super().list(prefix)
            if begins:
                finish(self, ref)
                lease.release()

    store = Meanwhile(aged.root)
    store.young = aged.young
    assert apply(store, days=0) == ([], 0)
    manifest = load(store, ref)
    assert manifest is not None
    assert verify(store, manifest) == []


def test_what_was_committed_by_a_process_that_then_died_while_the_store_was_listed_stays(
    aged: Aged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease is never given back, and is not held when leases are read again."""
    ref = next(task.ref for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "sample")
    aged.delete(ref.manifest)
    aged.young.add("leases/sample/")
    acquire(aged, ref)._stop.set()

    class Meanwhile(Aged):
        def list(self, prefix: str) -> Iterator[Entry]:
            yield from super().list(prefix)
            if prefix == "results/" and not self.stat(ref.manifest):
                finish(self, ref)
                monkeypatch.setattr(Process, "gone", True)

    store = Meanwhile(aged.root)
    store.young = aged.young
    assert plan_gc(store, days=0) == []
    assert load(store, ref) is not None


def test_what_is_taken_up_after_the_second_reading_of_leases_stays(aged: Aged) -> None:
    ref = Ref("sample", "k")
    aged.write(f"{ref.folder}/attempt/file", b"")
    aged.young.add("leases/sample/")

    class Meanwhile(Aged):
        def list(self, prefix: str) -> Iterator[Entry]:
            if prefix == "leases/sample/k/" and not any(super().list(prefix)):
                acquire(aged, ref)
            yield from super().list(prefix)

    store = Meanwhile(aged.root)
    store.young = aged.young
    assert apply(store, days=0) == ([], 0)
    assert aged.stat(f"{ref.folder}/attempt/file")


def test_a_damaged_manifest_keeps_its_files(aged: Aged, tmp_path: Path) -> None:
    ref = record_run(aged, tmp_path, "kept", "digits/C")[0].ref
    Scratch(aged, ref.scratch, 1).put("piece", b"")
    finish(aged, ref, "loser")
    aged.write(ref.manifest, aged.read(ref.manifest)[:-9])
    assert plan_gc(aged) == []


def test_averages_of_a_training_of_another_length_stay_by_their_manifests(aged: Aged, tmp_path: Path) -> None:
    trajectory = trajectory_ref(next(task for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "snapshot"))
    finish(aged, Ref("average", "later"), trajectory=trajectory.key)
    finish(aged, Ref("average", "others"), trajectory="another")
    assert [removal.path for removal in plan_gc(aged)] == ["results/average/others/"]


def test_results_that_plans_name_are_not_read(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "kept", "digits/C")
    training = next(task for task in tasks if task.stage == "snapshot")
    for epoch in TrainingSettings.model_validate(training.settings["training"]).stored_epochs(200)[:2]:
        finish(aged, average_ref(trajectory_ref(training), epoch))
    read: list[str] = []

    class Watched(Aged):
        def read(self, path: str) -> bytes:
            read.append(path)
            return super().read(path)

        def list(self, prefix: str) -> Iterator[Entry]:
            read.append(prefix)
            yield from super().list(prefix)

    aged.delete(f"results/average/of-{trajectory_ref(training).key}/manifest.json")
    plan_gc(Watched(aged.root))
    assert read == ["leases/", "runs/kept/plan.json", "results/", "scratch/", "leases/", "sources/", "work/", "code/", "leases/"]


def test_a_plan_that_the_store_does_not_hand_out_is_not_advised_to_be_forgotten(tmp_path: Path) -> None:
    class Denied(LocalStore):
        def read(self, path: str) -> bytes:
            raise StoreError("The store cannot use its key.", do_next="Ask who runs the bucket.")

    store = Denied(tmp_path)
    write_plan(store, "kept", "kept", [], {})
    with pytest.raises(IntegrityError, match="cannot use its key") as raised:
        read_plan(store, "kept")
    assert raised.value.do_next == "Ask who runs the bucket."


def test_two_do_not_remove_at_once_and_a_run_that_begins_waits(aged: Aged) -> None:
    aged.young.add("leases/gc/")
    said: list[str] = []
    with acquire(aged, GC):
        with pytest.raises(Busy, match="gc/store"):
            apply(aged)
        run = threading.Thread(target=record, args=(Run("new", aged), "new", "", [], {}, said.append))
        run.start()
        wait_until(lambda: said)
        assert aged.stat("runs/new/plan.json")  # before it waits, so that it is seen
        assert run.is_alive()
    run.join(10)
    assert not run.is_alive()
    assert "waiting until `edm2 gc`" in said[0]


@pytest.mark.parametrize("bits", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_flipped_bit_anywhere_in_a_plan_is_refused(aged: Aged, tmp_path: Path, bits: int) -> None:
    tasks = record_run(aged, tmp_path, "kept", "digits/C")
    write_plan(aged, "kept", "kept", tasks[:1], {})  # a bit at a time of a whole one takes minutes
    whole = aged.read("runs/kept/plan.json")
    for place in range(len(whole)):
        for bit in range(place, place + bits):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit % 8
            (aged.root / "runs/kept/plan.json").write_bytes(damaged)
            with pytest.raises(IntegrityError, match="plan of kept cannot be read"):
                read_plan(aged, "kept")
    for length in range(0, len(whole), 7):
        (aged.root / "runs/kept/plan.json").write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match="plan of kept cannot be read"):
            plan_gc(aged, days=0)


@pytest.mark.parametrize("flips", [100, pytest.param(600, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_a_plan_without_digest_is_refused_or_changes_nothing_that_is_needed(
    aged: Aged, tmp_path: Path, flips: int
) -> None:
    """Those of earlier versions; seven of six hundred such bits would once have removed needed results."""
    tasks = [task for task in record_run(aged, tmp_path, "old", "digits/C") if task.stage in ("prepare", "snapshot")]
    whole = json.dumps({"name": "old", "absent": {}, "tasks": [task.to_json() for task in tasks]}, indent=1).encode()
    aged.write("runs/old/plan.json", whole)
    needed = {removal.path for removal in plan_gc(aged)}
    bits = random.Random(0).sample(range(8 * len(whole)), flips)
    refused = 0
    for bit in bits:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        aged.write("runs/old/plan.json", bytes(damaged))
        try:
            assert {removal.path for removal in plan_gc(aged)} == needed, (bit, damaged[bit // 8 - 20 : bit // 8 + 20])
        except IntegrityError:
            refused += 1
    assert refused > 0.8 * flips


def test_every_run_whose_plan_is_damaged_or_lost_is_named(aged: Aged, tmp_path: Path) -> None:
    for run in ("kept", "flipped", "lost"):
        record(Run(run, aged), run, "", record_run(aged, tmp_path, run, "digits/C"), {})
    data = aged.read("runs/flipped/plan.json")
    aged.write("runs/flipped/plan.json", data.replace(b"digits", b"digitt"))
    aged.delete("runs/lost/plan.json")
    with pytest.raises(IntegrityError) as caught:
        apply(aged, days=0)
    assert "The plan of flipped cannot be read" in caught.value.what
    assert "The plan of lost is missing" in caught.value.what
    assert "runs/kept" not in caught.value.where


WRITER = """
import sys
from pathlib import Path
from edm2core.store.local import LocalStore
with LocalStore(Path(sys.argv[1]))._temporary() as temporary:
    temporary.write_bytes(b"12345")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_process_that_lives_is_writing_is_not_swept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    assert store.sweep(-1, lambda path: False) == 0
    writer.kill()
    writer.wait()
    assert store.sweep(3600, lambda path: False) == 0
    assert store.sweep(-1, lambda path: False) == 5


def test_what_a_process_elsewhere_was_writing_goes_after_a_day_without_any_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.write("a", b"")
    (tmp_path / ".tmp" / "000000000000-7-8-ab").write_bytes(b"12345")
    assert store.sweep(-1, lambda path: False) == 0
    later = time.time() + 2 * DAY_S
    monkeypatch.setattr(store, "_now", lambda: later)
    assert store.sweep(-1, lambda path: path == "") == 0
    assert store.sweep(-1, lambda path: False) == 5


def test_nothing_goes_while_a_plan_cannot_be_read(aged: Aged) -> None:
    aged.write("results/s/k/a/file", b"")
    for data in (b"", b"[]", b'{"tasks": [{}]}', b"\xff"):
        aged.write("runs/damaged/plan.json", data)
        with pytest.raises(IntegrityError) as caught:
            plan_gc(aged)
        assert "runs/damaged/plan.json" in caught.value.where


def test_a_manifest_goes_before_its_files(tmp_path: Path) -> None:
    deleted: list[str] = []

    class Watched(Aged):
        def delete(self, path: str) -> None:
            deleted.append(path)
            super().delete(path)

    store = Watched(tmp_path)
    finish(store, Ref("sample", "k"), "0-attempt")
    apply(store)
    assert next(path for path in deleted if path.startswith("results/")) == "results/sample/k/manifest.json"
    assert paths(store) == set()


def test_a_source_that_is_one_object_goes_as_such(aged: Aged) -> None:
    aged.write("sources/abc", b"123")
    (removal,) = plan_gc(aged)
    assert removal.path == "sources/abc"
    assert apply(aged) == ([removal], 3)
    assert paths(aged) == set()


def test_a_source_stays_as_long_as_a_plan_names_it_by_however_short_a_digest(aged: Aged) -> None:
    digests = {"md5:" + "1" * 32: "", "sha256:" + "2" * 64: ".tar", "sha256:6726825d": ""}
    tasks = [Task("prepare", 1, {"digest": digest}, {}, "k", "") for digest in digests]
    write_plan(aged, "kept", "kept", tasks, {})
    for digest, ending in digests.items():
        aged.write(f"sources/{digest.partition(':')[2]}{ending}", b"")
    assert plan_gc(aged) == []
    aged.delete("runs/kept/plan.json")
    assert len(plan_gc(aged)) == 3


def test_event_files_stay_as_long_as_a_run_names_their_training(aged: Aged, tmp_path: Path) -> None:
    tasks = record_run(aged, tmp_path, "one", "digits/C")
    path = f"{trajectory_ref(next(t for t in tasks if t.stage == 'snapshot')).scratch}/tensorboard/00001-events.out.tfevents.1"
    aged.write(path, b"events")
    apply(aged)
    assert aged.read(path) == b"events"
    aged.delete("runs/one/plan.json")
    apply(aged)
    assert aged.stat(path) is None


def remove(store: LocalStore, ref: Ref) -> None:
    for entry in [*store.list(f"{ref.folder}/")]:
        store.delete(entry.path)


def by_changed_code(store: LocalStore, ref: Ref, difference: str) -> str:
    """A result made by code that differs from its revision; where it is kept how."""
    path = diff_path(difference * 32)
    store.create(path, b"diff --git a/x b/x\n")
    store.write(f"{ref.folder}/a/file", b"12345")
    record = FileRecord(5, "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5")
    commit(store, Manifest(ref.stage, 1, ref.key, "", {}, {}, {}, "a", {"file": record}, {}, {"diff": difference * 32}))
    return path


def test_how_code_differed_stays_as_long_as_a_result_names_it(aged: Aged, tmp_path: Path) -> None:
    kept = next(task.ref for task in record_run(aged, tmp_path, "kept", "digits/C") if task.stage == "metrics")
    remove(aged, kept)
    named = by_changed_code(aged, kept, "aa")
    unneeded = Ref("metrics", "old")
    goes = by_changed_code(aged, unneeded, "bb")
    never = diff_path("cc" * 32)
    aged.create(never, b"diff --git a/x b/x\n")
    removals = plan_gc(aged)
    assert {removal.path: removal.why for removal in removals} == {
        goes: "no result names it",
        never: "no result names it",
        f"{unneeded.folder}/": "no run needs this result",
    }
    assert apply(aged) == (removals, sum(removal.size for removal in removals))
    assert [entry.path for entry in aged.list("code/")] == [named]


def test_how_code_differed_stays_while_anybody_works_and_while_it_is_young(aged: Aged) -> None:
    path = diff_path("cc" * 32)
    aged.create(path, b"diff --git a/x b/x\n")
    with acquire(aged, Ref("sample", "k")):  # may be about to commit a result that names it
        aged.young.add("leases/sample/k/")
        assert plan_gc(aged, days=0) == []
    aged.young.add("code/")
    assert plan_gc(aged) == []
    assert path in {removal.path for removal in plan_gc(aged, days=0)}


def test_how_code_differed_stays_where_work_begins_while_other_things_are_removed(aged: Aged) -> None:
    path = diff_path("cc" * 32)
    aged.create(path, b"diff --git a/x b/x\n")
    by_changed_code(aged, Ref("metrics", "old"), "bb")

    class Begins(Aged):
        def delete(self, path: str) -> None:
            super().delete(path)
            if path.endswith("/manifest.json"):
                acquire(self, Ref("sample", "k"))

    begins = Begins(aged.root)
    begins.young.add("leases/sample/k/")
    apply(begins)
    assert aged.stat(path)


def test_how_code_differed_stays_where_a_manifest_cannot_be_read(aged: Aged, tmp_path: Path) -> None:
    ref = record_run(aged, tmp_path, "kept", "digits/C")[0].ref
    aged.create(diff_path("cc" * 32), b"diff --git a/x b/x\n")
    aged.write(ref.manifest, aged.read(ref.manifest)[:-9])
    assert plan_gc(aged) == []


def test_manifests_are_read_for_it_only_until_all_are_found(aged: Aged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "AT_ONCE", 1)
    tasks = record_run(aged, tmp_path, "kept", "digits/C")
    remove(aged, tasks[0].ref)
    by_changed_code(aged, tasks[0].ref, "aa")
    read: list[str] = []

    class Dated(Aged):
        def read(self, path: str) -> bytes:
            read.append(path)
            return super().read(path)

        def list(self, prefix: str) -> Iterator[Entry]:
            for entry in super().list(prefix):
                yield entry if entry.path.startswith("code/") or entry.path == tasks[0].ref.manifest else entry._replace(age_s=99 * DAY_S)

    assert plan_gc(Dated(aged.root)) == []
    assert [path for path in read if path.endswith("manifest.json") and "/average/" not in path] == [tasks[0].ref.manifest]
