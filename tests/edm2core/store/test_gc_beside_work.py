"""Laws of gc in whatever order its steps and those of a run at work follow each other: nothing needed goes, and what is not needed does."""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.launcher.spec import work_ref
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store.base import Entry
from edm2core.store.gc import apply
from edm2core.store.leases import GC, acquire, holder
from edm2core.store.local import LocalStore
from edm2core.store.plans import write_plan
from edm2core.store.results import commit, load, new_attempt, upload_files, verify
from edm2core.store.scratch import Scratch

STRAY = Ref("metrics", "needed-by-nobody")


class Stepping(LocalStore):
    """Before each of its operations others do some of theirs; all that is in it is ten seconds old at least."""

    def __init__(self, root: Path, between: Callable[[], None]) -> None:
        super().__init__(root)
        self._between = between

    def _step(self) -> None:
        if threading.current_thread() is threading.main_thread():  # not for the beats of leases
            self._between()

    def list(self, prefix: str) -> Iterator[Entry]:
        self._step()
        for entry in super().list(prefix):
            yield entry._replace(age_s=entry.age_s + 10)

    def read(self, path: str) -> bytes:
        self._step()
        return super().read(path)

    def delete(self, path: str) -> None:
        self._step()
        super().delete(path)

    def stat(self, path: str) -> Entry | None:
        self._step()
        return super().stat(path)

    def folders(self, prefix: str) -> tuple[str, ...]:
        self._step()
        return super().folders(prefix)


@cache
def tasks() -> list[Task]:
    """Two snapshots of a training, the data that it reads, and samples of one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "e.yaml"
        file.write_text("name: e\nrecipes: [digits/C]\nepochs: [1, 2]\nmetrics: [fd]\nprobe: false\n")
        planned = plan(load_experiment(file), {"data:digits/C": "builtin:digits"})
    return [task for task in planned if task.stage in ("prepare", "snapshot", "sample")][:4]


def finished(store: LocalStore, ref: Ref, folder: Path) -> Iterator[None]:
    """Store a result's files, then commit them."""
    (folder / "file").unlink(missing_ok=True)
    (folder / "file").write_bytes(ref.key.encode())
    attempt = new_attempt()
    files = upload_files(store, ref, attempt, folder)
    yield
    commit(store, Manifest(ref.stage, 1, ref.key, "", {}, {}, {}, attempt, files))
    yield


def run(store: LocalStore, folder: Path) -> Iterator[None]:
    """A run from the record of its plan on: as `record`, and then every task as its stage does it."""
    write_plan(store, "new", "new", tasks(), {})
    yield
    while (other := holder(store, GC)) is not None and other.alive:
        yield
    for task in tasks():
        if load(store, task.ref) is not None:
            continue
        yield
        with acquire(store, work_ref(task)) as lease:
            yield
            scratch = Scratch(store, work_ref(task).scratch, lease.generation)
            scratch.put("piece", b"unfinished")
            yield
            if load(store, task.ref) is None:
                yield from finished(store, task.ref, folder)
            assert scratch.get("piece", folder) is not None
            if task.stage != "snapshot":
                scratch.clear()
        yield


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_nothing_that_a_run_needs_is_removed_in_whatever_order_things_happen(data: Any) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        store, folder = LocalStore(root / "store"), root / "out"
        folder.mkdir()
        there = data.draw(st.sets(st.sampled_from([task.ref for task in tasks()])), "of a run that is forgotten")
        for ref in [*there, STRAY]:
            list(finished(store, ref, folder))
        store.write(f"{tasks()[0].ref.folder}/loser/file", b"")
        work = run(store, folder)
        for _ in range(data.draw(st.integers(0, 12), "steps before")):
            next(work, None)
        steps = iter(data.draw(st.lists(st.integers(0, 4), min_size=10, max_size=60), "steps between"))
        apply(Stepping(root / "store", lambda: [next(work, None) for _ in range(next(steps, 0))] and None), days=0)
        list(work)
        for task in tasks():
            manifest = load(store, task.ref)
            assert manifest is not None, task.title
            assert verify(store, manifest) == [], task.title
        assert Scratch(store, work_ref(tasks()[1]).scratch, 99).names() in (["piece"], [])
        assert load(store, STRAY) is None
        store.delete("runs/new/plan.json")
        apply(Stepping(root / "store", lambda: None), days=0)
        assert {entry.path.split("/")[1] for entry in store.list("") if not entry.path.startswith("leases/gc/")} == set()
    finally:
        shutil.rmtree(root)
