"""edm2 verify"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from edm2core.data.source import digest_of
from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.manifest import Manifest, Ref
from edm2core.plan import Task, trajectory_ref
from edm2core.store import find_store
from edm2core.store.averages import stored_averages
from edm2core.store.base import Store
from edm2core.store.results import discard, load, verify
from edm2core.store.runs import list_runs, load_plan
from edm2core.store.sources import take
from edm2core.store.summary import Summary
from pipelines.cli.options import store_argument
from pipelines.sources import brought

ASKED = ("experiment.yaml", "plan.json")  # what a run's record says from its beginning


@click.command(short_help="Check the digests of everything that runs stand on.")
@store_argument
@click.option("--run", "only", help="Only what this run stands on.")
@click.option("--drop", is_flag=True, help="Remove damaged results, so that the next run makes them anew.")
def command(store: str, only: str | None, drop: bool) -> None:
    """Read every result that the runs in STORE stand on, what was brought for them, and the runs' own records and reports, and compare each
    with its recorded digest."""
    where = find_store(store)
    runs = [only] if only else list_runs(where)
    changed = [line for run in runs for line in _changed_records(where, run)]
    tasks: list[Task] = []
    for run in runs:
        try:
            tasks += load_plan(where, run)[1]
        except IntegrityError as error:
            changed.append(f"{error.where}: {error.what}")
    checked, damaged, absent = 0, 0, 0
    for ref in _results(where, tasks):
        manifest, problems = _examined(where, ref)
        absent += manifest is None and not problems
        checked += manifest is not None or bool(problems)
        if problems:
            damaged += 1
            click.echo(f"✗ {manifest.title if manifest else ref.stage} ({ref}): {' '.join(problems)}{' Removed.' if drop else ''}")
            if drop:
                discard(where, f"{ref.folder}/")
        elif manifest:
            for name in _made_anew(where, manifest):
                click.echo(f"· {manifest.title} ({ref}) stands on an earlier {name} ({manifest.inputs[name]}), which is another now.")
    changed += dict.fromkeys(_changed_sources(where, tasks))
    for line in changed:
        click.echo(f"✗ {line}")
    if changed or (damaged and not drop):
        others = f" {len(changed)} records or sources have changed." if changed else ""
        raise EdmError(
            f"{damaged} of {checked} results are damaged.{others}",
            where=where.uri,
            do_next="`--drop` removes damaged results, so that the next run makes them anew, snapshots with --train-again; a source has "
            "to be brought again, and a run's experiment run again to record it anew.",
        )
    missing = f" {absent} more are planned and not there: not run yet, or removed." if absent else ""
    click.echo(f"{checked - damaged} of {checked} results are as recorded.{missing}")


def _changed_records(store: Store, run: str) -> Iterator[str]:
    """What is not as it was written of a run's own files; those of a report only once nobody works on the run."""
    try:
        summary = Summary.load(store, run)
    except MissingError:
        return  # of an earlier version
    except IntegrityError as error:
        yield f"runs/{run}/summary.json: {error.what}"
        return
    for name, record in summary.files.items():
        path = f"runs/{run}/{name}"
        if summary.ended is None and name not in ASKED:
            continue
        try:
            if store.record(path) != record:
                yield f"{path} has other contents than those recorded (SHA-256 {record.sha256[:12]}…)."
        except MissingError:
            yield f"{path} is missing."


def _results(store: Store, tasks: list[Task]) -> list[Ref]:
    """All that runs stand on: their tasks' results, and the averages that their trainings stored."""
    trajectories = {trajectory_ref(task): task.settings["training"]["epochs"] for task in tasks if task.stage == "snapshot"}
    averages = [manifest.ref for ref, epochs in trajectories.items() for manifest in stored_averages(store, ref, epochs).values()]
    return list(dict.fromkeys([*(task.ref for task in tasks), *averages]))


def _examined(store: Store, ref: Ref) -> tuple[Manifest | None, list[str]]:
    try:
        manifest = load(store, ref)
    except IntegrityError as error:
        return None, [f"manifest.json: {error.what}"]
    return manifest, verify(store, manifest) if manifest else []


def _made_anew(store: Store, manifest: Manifest) -> Iterator[str]:
    """The inputs whose manifest is not the one that the result was made from."""
    for name, digest in manifest.input_digests.items():
        try:
            found = load(store, Ref.parse(manifest.inputs[name]))
        except IntegrityError:
            continue  # is named itself
        if found and found.digest != digest:
            yield name


def _changed_sources(store: Store, tasks: Iterable[Task]) -> Iterator[str]:
    """What was brought and is other than the plan says: in the store, and on this machine's disk where it is still there."""
    for task in brought(tasks):
        digest, source = str(task.settings["digest"]), str(task.settings["source"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                take(store, digest, Path(folder))
            except IntegrityError as error:
                yield f"{error.where}: {error.what}"
        if "://" not in source and Path(source).exists():
            found = digest_of(Path(source), digest.partition(":")[0])
            if not found.startswith(digest):
                yield f"{source} is {found[:19]}…, and the {task.stage} result was made from {digest[:19]}…."
