"""edm2 verify"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from edm2core.data.source import digest_of
from edm2core.errors import EdmError, IntegrityError, MissingError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.store import find_store
from edm2core.store.averages import all_stored, trainings
from edm2core.store.base import Store, each
from edm2core.store.damage import Damage, of_appended, of_code, of_leases, of_run, of_scratch
from edm2core.store.results import discard, load, verify
from edm2core.store.runs import list_runs, load_plan
from edm2core.store.sources import PACKED, stored_path, take
from edm2core.store.summary import Summary
from pipelines.cli.options import store_argument
from pipelines.inputs.sources import brought

AT_ONCE = 256  # results that are examined side by side on a remote store
ASKED = ("experiment.yaml", "plan.json")  # what a run's record says from its beginning


@click.command(short_help="Check the digests of everything that runs stand on.")
@store_argument
@click.option("--run", "only", help="Only what this run stands on.")
@click.option("--drop", is_flag=True, help="Remove what is damaged, so that the next run makes it anew, and mend what can be.")
def command(store: str, only: str | None, drop: bool) -> None:
    """Read every result that the runs in STORE stand on, what was brought for them, unfinished work, leases, and the runs' own records,
    reports and logs, and compare each with its recorded digest.

    With --drop damaged results, sources and pieces of unfinished work are removed, damaged leases are given back, a damaged summary is made
    anew from its plan, and lines that cannot be read are taken out of a run's events. What is lost of a log or of TensorBoard's event files
    is lost: the rest is kept, and its digest recorded anew. A damaged plan is mended by running its experiment again, a damaged report by
    `edm2 report`.
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
    checked, damaged, absent = 0, 0, 0
    digests: dict[Ref, str | None] = {}
    for ref, (manifest, problems) in _examined_all(where, _results(where, tasks)):
        absent += manifest is None and not problems
        checked += manifest is not None or bool(problems)
        if problems:
            damaged += 1
            click.echo(f"✗ {manifest.title if manifest else ref.stage} ({ref}): {' '.join(problems)}{' Removed.' if drop else ''}")
            if drop:
                discard(where, f"{ref.folder}/")
        elif manifest:
            for name in _made_anew(where, manifest, digests):
                click.echo(f"· {manifest.title} ({ref}) stands on an earlier {name} ({manifest.inputs[name]}), which is another now.")
    changed += dict.fromkeys(_changed_sources(where, tasks, drop))
    found = [
        *_of_runs(where, runs),
        *of_leases(where),
        *of_scratch(where, _unfinished(where, tasks)),
        *of_code(where),
    ]
    for damage in found:
        click.echo(f"✗ {damage.path}: {damage.what}{f' {damage.mend()}' if drop else ''}")
    for line in changed:
        click.echo(f"✗ {line}")
    changed += [] if drop else [damage.path for damage in found]
    if changed or (damaged and not drop):
        others = f" {len(changed)} records or sources have changed." if changed else ""
        raise EdmError(
            f"{damaged} of {checked} results are damaged.{others}",
            where=where.uri,
            do_next="`--drop` removes damaged results, so that the next run makes them anew, snapshots with --train-again, and mends "
            "leases, summaries, events, logs and unfinished work. A source has to be brought again, a report written again "
            "(edm2 report), and a run's experiment run again, which records its plan anew.",
        )
    missing = f" {absent} more are planned and not there: not run yet, or removed." if absent else ""
    click.echo(f"{checked - damaged} of {checked} results are as recorded.{missing}")


def _of_runs(store: Store, runs: list[str]) -> Iterator[Damage]:
    """Damage to the records of runs, each file once."""
    for run in runs:
        found = list(of_run(store, run))
        named = {damage.path for damage in found}
        yield from found
        yield from (damage for damage in of_appended(store, run) if damage.path not in named)


def _changed_records(store: Store, run: str) -> Iterator[str]:
    """What is not as it was written of a run's own files; those of a report only once nobody works on the run."""
    try:
        summary = Summary.load(store, run)
    except MissingError:
        return  # of an earlier version
    except IntegrityError:
        return  # `of_run` names it
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
    return list(dict.fromkeys([*(task.ref for task in tasks), *all_stored(store, trainings(tasks))]))


def _unfinished(store: Store, tasks: list[Task]) -> list[Ref]:
    """What of the runs' work has pieces in scratch."""
    refs = {*trainings(tasks), *(task.ref for task in tasks)}
    there = {Ref(stage, key) for stage in store.folders("scratch/") for key in store.folders(f"scratch/{stage}/")}
    return sorted(refs & there)


def _examined_all(store: Store, refs: list[Ref]) -> Iterator[tuple[Ref, tuple[Manifest | None, list[str]]]]:
    """Each result's manifest and problems, some at a time, so that not all manifests are held at once."""
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
    """The inputs whose manifest is not the one that the result was made from; `known` keeps digests of manifests."""
    for name, digest in manifest.input_digests.items():
        ref = Ref.parse(manifest.inputs[name])
        if ref not in known:
            try:
                found = load(store, ref)
                known[ref] = found.digest if found else None
            except IntegrityError:
                known[ref] = None  # is named itself
        if known[ref] not in (None, digest):
            yield name


def _changed_sources(store: Store, tasks: Iterable[Task], drop: bool) -> Iterator[str]:
    """What was brought and is other than the plan says: in the store, and on this machine's disk where it is still there."""
    for task in {(task.settings["digest"], task.settings["source"]): task for task in brought(tasks)}.values():
        digest, source = str(task.settings["digest"]), str(task.settings["source"])
        with tempfile.TemporaryDirectory() as folder:
            try:
                take(store, digest, Path(folder))
            except IntegrityError as error:
                yield f"{error.where}: {error.what}{' Removed; submitting its experiment again brings it anew.' if drop else ''}"
                for ending in ("", PACKED) if drop else ():
                    store.delete(stored_path(digest) + ending)
        if "://" not in source and Path(source).exists():
            found = digest_of(Path(source), digest.partition(":")[0])
            if not found.startswith(digest):
                yield f"{source} is {found[:19]}…, and the {task.stage} result was made from {digest[:19]}…."
