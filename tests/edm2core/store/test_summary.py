"""A list of runs: what it says of each, whatever state it is in, and that it reads no more than it needs."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edm2core.errors import InputError, IntegrityError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.store import Store, find_store
from edm2core.store.local import LocalStore
from edm2core.store.plans import plan_path
from edm2core.store.results import commit
from edm2core.store.runs import Run, add_tasks, list_runs, load_plan, open_run
from edm2core.store.s3_client import Http
from edm2core.store.summary import Summary, change, epochs_in_words, listing, summary_path, write

TEXT = "name: {name}\nrecipes: [digits/G]\nseeds: [0, 1]\nepochs: [1, 2]\nmetrics: [fd]\nprobe: false\n"


def begin(store: Store, tmp_path: Path, name: str) -> tuple[Run, list[Task]]:
    (tmp_path / "e.yaml").write_text(TEXT.format(name=name))
    experiment = load_experiment(tmp_path / "e.yaml")
    tasks = plan(experiment, {"data:digits/G": "builtin:digits"})
    return open_run(store, experiment, tasks, {}), tasks


def finish(store: Store, *tasks: Task) -> None:
    for task in tasks:
        commit(store, Manifest(task.stage, task.version, task.key, task.title, task.settings, {}, {}, "attempt", {}))


def make_old(store: LocalStore, run: Run) -> None:
    """As if it had been written two minutes ago: by the store's clock."""
    store._now = lambda: time.time() + 120  # type: ignore[method-assign]


def test_a_run_that_goes_on_says_how_many_tasks_are_done(store: Store, tmp_path: Path) -> None:
    run, tasks = begin(store, tmp_path, "one")
    finish(store, *tasks[:3])
    (found,) = listing(store)
    assert (found.id, found.state, found.done, found.summary.tasks) == (run.id, "running", 3, len(tasks))
    assert (found.summary.recipes, found.summary.seeds, found.summary.epochs) == (("digits/G",), (0, 1), (1, 2))


def test_tasks_that_are_added_later_count_and_leave_the_start_and_the_rest_as_they_were(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, tasks = begin(store, tmp_path, "one")
    change(store, run.id, asked=1000.0, states={"done": 1})
    before = Summary.load(store, run.id)
    again = [replace(task, key=f"{task.key[:-1]}0") for task in tasks[-2:]]
    add_tasks(run, "one", [*tasks, *again], {})
    after = Summary.load(store, run.id)
    assert (after.asked, after.states, after.epochs) == (before.asked, before.states, before.epochs) == (1000.0, {"done": 1}, (1, 2))
    assert after.tasks == len(load_plan(store, run.id)[1]) == len(tasks) + 2
    assert after.files.keys() == before.files.keys()
    assert after.files["plan.json"] != before.files["plan.json"]


@pytest.mark.parametrize(
    ("epochs", "words"),
    [((), ""), ((5,), "epoch 5"), ((1, 2, 5, 9), "epochs 1, 2, 5, 9"), (tuple(range(100, 2001, 100)), "20 epochs from 100 to 2000")],
)
def test_many_epochs_are_counted_and_few_are_listed(epochs: tuple[int, ...], words: str) -> None:
    assert epochs_in_words(epochs) == words


def test_a_run_that_is_silent_has_stopped_and_one_with_every_result_is_done(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, tasks = begin(store, tmp_path, "one")
    make_old(store, run)
    assert [found.state for found in listing(store)] == ["stopped"]
    finish(store, *tasks)
    assert [found.state for found in listing(store)] == ["done"]


def test_the_end_of_a_run_is_read_from_its_summary(store: Store, tmp_path: Path) -> None:
    states = {"failed": {"done": 3, "failed": 1}, "stopped": {"done": 3, "interrupted": 5}, "done": {"done": 11, "reused": 4}}
    for name, counts in states.items():
        run, tasks = begin(store, tmp_path, name)
        change(store, run.id, states=counts)
        run.end()
    assert {found.summary.name: (found.state, found.done) for found in listing(store)} == {
        "failed": ("failed", 3),
        "stopped": ("stopped", 3),
        "done": ("done", len(tasks)),
    }


def test_a_run_of_an_earlier_version_is_listed_from_its_plan(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, tasks = begin(store, tmp_path, "one")
    store.delete(f"{run.folder}/summary.json")
    (found,) = listing(store)
    assert (found.summary.name, found.done, found.summary.tasks) == ("one", 0, len(tasks))
    assert found.summary.asked == pytest.approx(time.time(), abs=30)


def test_a_damaged_plan_is_a_line_in_the_list_and_an_error_where_it_is_needed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, _ = begin(store, tmp_path, "one")
    store.write(f"{run.folder}/plan.json", json.dumps({"name": "one", "tasks": [{"stage": "snapshot", "of": "tomorrow"}]}).encode())
    assert [found.state for found in listing(store)] == ["damaged"]
    with pytest.raises(IntegrityError, match="another version"):
        load_plan(store, run.id)


@pytest.mark.parametrize("run", ["ghost", "../one", "", "."])
def test_a_run_that_is_not_there_is_bad_input(tmp_path: Path, run: str) -> None:
    store = LocalStore(tmp_path / "store")
    begin(store, tmp_path, "one")
    with pytest.raises(InputError, match="no run"):
        load_plan(store, run)


def test_a_finished_run_costs_a_remote_store_one_request(seaweedfs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        run, tasks = begin(seaweedfs, tmp_path, f"run-{number}")
        for task in tasks:
            run.log({"kind": "done", "task": str(task.ref)})
        run.close()
        change(seaweedfs, run.id, states={"done": len(tasks)})
        run.end()
    asked: list[str] = []
    really = Http.urlopen

    def counted(self: Http, method: str, url: str, *rest: object, **named: object) -> object:
        asked.append(method)
        return really(self, method, url, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Http, "urlopen", counted)
    assert [found.state for found in listing(seaweedfs)] == ["done"] * 5
    assert len(asked) == 1 + 5


def test_what_a_run_writes_locally_is_seen_in_a_remote_store_while_it_goes_on(
    seaweedfs: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edm2core.store.runs.SHARE_S", 0.0)
    run, tasks = begin(seaweedfs, tmp_path, "one")
    run.log({"kind": "running", "task": str(tasks[0].ref)})
    log = run.log_path(tasks[0])
    log.parent.mkdir(parents=True)
    log.write_text("a line\n")
    run.share()
    names = [entry.path.removeprefix(f"{run.folder}/").split("/")[0] for entry in seaweedfs.list(f"{run.folder}/")]
    assert names == ["events", "experiment.yaml", "logs", "plan.json", "summary.json"]


def test_a_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, _ = begin(store, tmp_path, "one")
    path = summary_path(run.id)
    summary = Summary.load(store, run.id)
    write(store, summary)
    whole = store.read(path)
    assert Summary.load(store, run.id) == summary
    for damaged in (b"", b"[]", b'{"id": "one"}', whole[:-9], whole.replace(b"digits", b"digitt")):
        store.write(path, damaged)
        with pytest.raises(IntegrityError, match="The record is damaged"):
            Summary.load(store, run.id)


def test_one_damaged_record_hides_no_other_run(store: Store, tmp_path: Path) -> None:
    """A remote store refuses damaged bytes itself; here they are other bytes, whole."""
    runs = {name: begin(store, tmp_path, name)[0] for name in ("whole", "plan", "summary", "lost", "ended")}
    change(store, runs["ended"].id, states={"done": 15})
    runs["ended"].end()
    store.write(plan_path(runs["plan"].id), store.read(plan_path(runs["plan"].id)).replace(b"digits", b"digitt"))
    store.write(summary_path(runs["summary"].id), b"\xff\x00")
    store.delete(plan_path(runs["lost"].id))
    found = {listed.summary.name: listed for listed in listing(store)}
    states = {name: listed.state for name, listed in found.items()}
    assert states == {"whole": "running", "plan": "damaged", "summary": "damaged", "lost": "damaged", "ended": "done"}
    assert found["summary"].trouble.startswith("summary.json: ")
    assert "has been changed since it was written" in found["plan"].trouble
    assert found["lost"].trouble == "plan.json is missing."


def test_a_finished_runs_damaged_plan_shows_on_a_local_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, _ = begin(store, tmp_path, "one")
    change(store, run.id, states={"done": 15})
    run.end()
    store.write(plan_path(run.id), store.read(plan_path(run.id))[:-1])
    (found,) = listing(store)
    assert (found.state, found.done) == ("damaged", 15)
    assert found.trouble.startswith("plan.json has ")


def test_only_a_folder_with_a_plan_is_a_run(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    run, _ = begin(store, tmp_path, "one")
    store.write("runs/notes/about.txt", b"mine")
    assert list_runs(store) == [run.id] == [found.id for found in listing(store)]


def test_an_address_without_a_store_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no store here"):
        find_store(str(tmp_path / "ghost"))
    os.makedirs(tmp_path / "home" / "music")
    with pytest.raises(InputError, match="not a store"):
        find_store(str(tmp_path / "home"))
