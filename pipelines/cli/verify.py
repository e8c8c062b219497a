"""edm2 verify"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from edm2core.data.source import digest_of
from edm2core.errors import EdmError, IntegrityError
from edm2core.manifest import Manifest, Ref
from edm2core.plan import Task, trajectory_ref
from edm2core.store import open_store
from edm2core.store.averages import stored_averages
from edm2core.store.base import Store
from edm2core.store.results import discard, load, verify
from edm2core.store.runs import list_runs, load_plan
from edm2core.store.sources import take
from pipelines.sources import brought


@click.command(short_help="Check the digests of everything that runs stand on.")
@click.argument("store")
@click.option("--run", "only", help="Only what this run stands on.")
@click.option("--drop", is_flag=True, help="Remove damaged results, so that the next run makes them anew.")
def command(store: str, only: str | None, drop: bool) -> None:
    """Read every result that the runs in STORE stand on, and what was brought for them, and compare it with its recorded digest."""
    where = open_store(store)
    tasks = [task for run in ([only] if only else list_runs(where)) for task in load_plan(where, run)[1]]
    checked, damaged = 0, 0
    for ref in _results(where, tasks):
        manifest, problems = _examined(where, ref)
        checked += manifest is not None or bool(problems)
        if problems:
            damaged += 1
            click.echo(f"✗ {manifest.title if manifest else ref.stage} ({ref}): {' '.join(problems)}{' Removed.' if drop else ''}")
            if drop:
                discard(where, f"{ref.folder}/")
        elif manifest:
            for name in _made_anew(where, manifest):
                click.echo(f"· {manifest.title} ({ref}) stands on an earlier {name} ({manifest.inputs[name]}), which is another now.")
    changed = list(dict.fromkeys(_changed_sources(where, tasks)))
    for line in changed:
        click.echo(f"✗ {line}")
    if changed or (damaged and not drop):
        sources = f" {len(changed)} sources have changed." if changed else ""
        raise EdmError(
            f"{damaged} of {checked} results are damaged.{sources}",
            where=where.uri,
            do_next="`--drop` removes damaged results, so that the next run makes them anew; a source has to be brought again.",
        )
    click.echo(f"{checked - damaged} of {checked} results are as recorded.")


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
        if found and hashlib.sha256(found.dumps()).hexdigest() != digest:
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
