"""edm2 reproduce"""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from edm2core.errors import InputError, IntegrityError
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.tasks import Task
from edm2core.store import find_store, split_address
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import list_runs, load_plan
from pipelines.cli.options import store_option


@click.command()
@click.argument("result")
@click.option("--experiment", is_flag=True, help="Print the experiment file that it comes from, not the command.")
@store_option
def command(result: str, experiment: bool, store: str) -> None:
    """Print the command that computes RESULT and everything that it needs again, in a store of its own.

    RESULT is STORE/results/STAGE/KEY, as a report gives it, or STAGE/KEY with --store.
    """
    where, manifest = _find(result, store)
    run, task = _run_of(where, manifest.ref)
    text = where.read(f"runs/{run}/experiment.yaml").decode()
    if experiment:
        click.echo(text, nl=False)
        return
    made = manifest.provenance
    click.echo(f"# {manifest.title}" + "".join(f" · {name} {value}" for name, value in manifest.measured.items() if value is not None))
    click.echo(f"# recorded in {where.uri}/{manifest.ref.manifest}, made on {made.get('device', 'an unknown device')}")
    if text.startswith("# edm2 "):  # the result comes from a command, not from an experiment
        click.echo("\n".join([_checkout(made, where), f".venv/bin/{text[2:].strip()}"]))
        return
    file = f"{run}.yaml"
    only = "" if task.subject.recheck else f" --only {manifest.ref}"  # the best snapshot is known only after all others
    click.echo(f"edm2 reproduce {shlex.quote(f'{where.uri}/{manifest.ref.folder}')} --experiment > {shlex.quote(file)}")
    click.echo(_checkout(made, where))
    click.echo(f".venv/bin/edm2 run {shlex.quote(file)} --store again{only}")


def _find(result: str, store: str) -> tuple[Store, Manifest]:
    uri, address = split_address(result.removesuffix("/manifest.json"), "results", store)
    where = find_store(uri)
    manifest = load(where, Ref.parse(address)) if address.count("/") == 1 else None
    if manifest is None:
        raise InputError(
            f"There is no result {address} in {where.uri}.",
            where=result,
            do_next="The report's table of every value names results, as does `edm2 plan EXPERIMENT`.",
        )
    return where, manifest


def _run_of(store: Store, ref: Ref) -> tuple[str, Task]:
    for run in list_runs(store):
        with suppress(IntegrityError):  # another run's plan may be damaged
            for task in load_plan(store, run)[1]:
                if task.ref == ref:
                    return run, task
    raise InputError(
        f"No run in {store.uri} has {ref}, so the experiment that it comes from is not known.",
        where=ref.manifest,
        do_next="Its settings and inputs are in its manifest.",
    )


def _checkout(made: Mapping[str, Any], store: Store) -> str:
    """The commands that check out the code that made a result."""
    version = str(made.get("code_version", ""))
    revision, changed = version.split("+")[-1].removesuffix("-dirty"), version.endswith("-dirty")
    if revision in ("", "unknown") or (changed and "diff" not in made):
        lines = [f"# the code was at no commit: {version or 'not recorded'}"]
    else:
        lines = [f"git checkout {shlex.quote(revision)}"]
    if "diff" in made:
        there = f"{store.uri}/{diff_path(str(made['diff']))}"
        lines.append(f"git apply {shlex.quote(there)}" if "://" not in there else f"# then apply what had been changed: {there}")
    return "\n".join([*lines, "make .venv/ready"])
