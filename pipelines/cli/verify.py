"""edm2 verify"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from edm2core.data.source import digest_of
from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.own_code.source import content_digest
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.store import find_store
from edm2core.store.averages import all_stored, trainings
from edm2core.store.base import Store, difference, each
from edm2core.store.damage import Damage, of_appended, of_code, of_leases, of_run, of_scratch
from edm2core.store.results import discard, load, verify
from edm2core.store.runs import list_runs, load_plan
from edm2core.store.summary import Summary
from edm2core.store.uploaded_sources import PACKED, stored_path, take
from pipelines.cli.options import store_argument
from pipelines.inputs.user_files import brought

AT_ONCE = 256  # the most manifests in memory at once
ASKED = ("experiment.yaml", "plan.json")  # the files that a run has from its beginning


@click.command()
@store_argument
@click.option("--run", "only", help="Only what this run needs.")
@click.option("--drop", is_flag=True, help="Remove what is damaged, so that the next run makes it anew, and mend what can be.")
def command(store: str, only: str | None, drop: bool) -> None:
    """Compare everything that the runs in STORE need with its recorded digest: results, sources, unfinished work, leases, and the runs' own
    records, reports and logs.

    With --drop, damaged results, sources and pieces of unfinished work are removed. Damaged leases are released, a damaged summary is made
    anew from its plan, and unreadable lines are removed from a run's events. Damaged logs and event files of TensorBoard are kept as they
    are, and their digests recorded anew. A damaged plan is mended by running its experiment again, a damaged report by `edm2 report`.
    """
    where = find_store(store)
    runs = [only] if only else list_runs(where)
    changed = [line for run in runs for line in _changed_records(where, run)]
    tasks: list[Task] = []
    for run in runs:
        try:
            tasks += load_plan(where, run)[1]
        except IntegrityError as error:
            changed.append(f"{error.where}: {error.what}")
    refs = list(dict.fromkeys([*(task.ref for task in tasks), *all_stored(where, trainings(tasks))]))  # and trainings' stored averages
    sound, damaged, absent = 0, 0, 0
    digests: dict[Ref, str | None] = {}
    for ref, (manifest, problems) in _examined_all(where, refs):
        if problems:
            damaged += 1
            click.echo(f"✗ {manifest.title if manifest else ref.stage} ({ref}): {' '.join(problems)}{' Removed.' if drop else ''}")
            if drop:
                discard(where, ref)
        elif manifest:
            sound += 1
            for name in _made_anew(where, manifest, digests):
                earlier = f"an earlier {name} ({manifest.inputs[name]}), which has changed since."
                click.echo(f"· {manifest.title} ({ref}) was made from {earlier}")
        else:
            absent += 1
    changed += dict.fromkeys(_changed_sources(where, tasks, drop))
    of_runs = (damage for run in runs for damage in (*of_run(where, run), *of_appended(where, run)))
    others: dict[str, Damage] = {}  # the first damage of each file
    for damage in (*of_runs, *of_leases(where), *of_scratch(where, _unfinished(where, tasks)), *of_code(where)):
        others.setdefault(damage.path, damage)
    for damage in others.values():
        click.echo(f"✗ {damage.path}: {damage.what}{f' {damage.mend()}' if drop else ''}")
    for line in changed:
        click.echo(f"✗ {line}")
    changed += [] if drop else others
    if changed or (damaged and not drop):
        records = f" {len(changed)} records or sources have changed." if changed else ""
        raise EdmError(
            f"{damaged} of {sound + damaged} results are damaged.{records}",
            where=where.uri,
            do_next="`--drop` removes damaged results, so that the next run makes them anew (snapshots with --train-again). It also "
            "mends leases, summaries, events, logs and unfinished work. For a damaged source, submit its experiment again; for a report, "
            "use `edm2 report`; for a plan, run its experiment again, which records the plan anew.",
        )
    missing = f" {absent} more are planned and not there: not run yet, or removed." if absent else ""
    click.echo(f"{sound} of {sound + damaged} results are as recorded.{missing}")


def _changed_records(store: Store, run: str) -> Iterator[str]:
    """What has changed in a run's own files. The files of its report count only once work on the run has ended."""
    try:
        summary = Summary.load(store, run)
    except (MissingError, IntegrityError):  # a run of an earlier version has none; `of_run` names a damaged one
        return
    for name, record in summary.files.items():
        path = f"runs/{run}/{name}"
        if (summary.ended is not None or name in ASKED) and (what := difference(store, path, record, path)):
            yield what


def _unfinished(store: Store, tasks: list[Task]) -> list[Ref]:
    """The runs' results and trajectories on which there is unfinished work in the store."""
    refs = {*trainings(tasks), *(task.ref for task in tasks)}
    there = {Ref(stage, key) for stage in store.folders("scratch/") for key in store.folders(f"scratch/{stage}/")}
    return sorted(refs & there)


def _examined_all(store: Store, refs: list[Ref]) -> Iterator[tuple[Ref, tuple[Manifest | None, list[str]]]]:
    """The manifest and problems of each result. They are read some at a time, so that not all manifests are held at once."""
    for first in range(0, len(refs), AT_ONCE):
        some = refs[first : first + AT_ONCE]
        yield from zip(some, each(store, lambda ref: _examined(store, ref), some), strict=True)


def _examined(store: Store, ref: Ref) -> tuple[Manifest | None, list[str]]:
    try:
        manifest = load(store, ref)
    except IntegrityError as error:
        return None, [f"manifest.json: {error.what}"]
    return manifest, verify(store, manifest) if manifest else []


def _made_anew(store: Store, manifest: Manifest, known: dict[Ref, str | None]) -> Iterator[str]:
    """The names of inputs that have changed since the result was made; `known` caches the digests of manifests."""
    for name, digest in manifest.input_digests.items():
        ref = Ref.parse(manifest.inputs[name])
        if ref not in known:
            try:
                current = load(store, ref)
                known[ref] = current.digest if current else None
            except IntegrityError:
                known[ref] = None  # a line of its own names it
        if known[ref] not in (None, digest):
            yield name


def _changed_sources(store: Store, tasks: Iterable[Task], drop: bool) -> Iterator[str]:
    """The sources that differ from the plan: those in the store, and those that are still on this machine's disk."""
    tasks = list(tasks)
    for content in {content for task in tasks for content in task.code.values()}:  # own code, whose files the user may change
        yield from _damaged_source(store, content_digest(content), drop)
    for task in {(task.settings["digest"], task.settings["source"]): task for task in brought(tasks)}.values():
        digest, source = str(task.settings["digest"]), str(task.settings["source"])
        yield from _damaged_source(store, digest, drop)
        if "://" not in source and Path(source).exists():
            actual = digest_of(Path(source), digest.partition(":")[0])
            if not actual.startswith(digest):
                yield f"{source} is {actual[:19]}…, and the {task.stage} result was made from {digest[:19]}…."


def _damaged_source(store: Store, digest: str, drop: bool) -> Iterator[str]:
    """A line if the store's copy of a source is damaged; with `drop` it is removed."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            take(store, digest, Path(folder))
        except IntegrityError as error:
            yield f"{error.where}: {error.what}{' Removed; submitting its experiment again brings it anew.' if drop else ''}"
            for ending in ("", PACKED) if drop else ():
                store.delete(stored_path(digest) + ending)
