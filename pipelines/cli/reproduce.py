"""edm2 reproduce"""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from edm2core.config.yaml_file import parse
from edm2core.errors import InputError, IntegrityError
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.store import find_store, split_address
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import list_runs, load_plan
from pipelines.cli.options import FOLDER, store_option
from pipelines.inputs.earlier_experiment import code_address, installed, own_code, recipe_files, write_experiment


@click.command()
@click.argument("result")
@click.option("--experiment", is_flag=True, help="Print the experiment file that it comes from, not the command.")
@click.option(
    "--to",
    type=FOLDER,
    help="Write that file into this new folder, with its recipe files and own code as they were, and not the command.",
)
@store_option
def command(result: str, experiment: bool, to: Path | None, store: str) -> None:
    """Print the command that computes RESULT and everything that it needs again, in a store of its own.

    RESULT is STORE/results/STAGE/KEY, as a report gives it, or STAGE/KEY with --store.
    """
    where, manifest = _find(result, store)
    run, name, plan, task = _run_of(where, manifest.ref)
    text = where.read(f"runs/{run}/experiment.yaml").decode()
    of_command = text.startswith("# edm2 ")  # the result comes from a command, not from an experiment
    if to is not None and of_command:
        raise InputError("The result comes from a command, not from an experiment.", where="--to", do_next="Leave --to out to see it.")
    if to is not None:
        for path in write_experiment(name, text, plan, where, to):
            click.echo(path)
        for line in _to_install(plan):
            click.echo(line)
        return
    needed = [] if of_command else [*recipe_files(parse(text, run)), *own_code(plan)]
    if experiment:
        click.echo(text, nl=False)
        if needed:
            click.echo(f"It needs {', '.join(needed)} beside it: --to FOLDER writes these too, as they were.", err=True)
        return
    made = manifest.provenance
    click.echo(f"# {manifest.title}" + "".join(f" · {name} {value}" for name, value in manifest.measured.items() if value is not None))
    click.echo(f"# recorded in {where.uri}/{manifest.ref.manifest}, made on {made.get('device', 'an unknown device')}")
    if of_command:
        click.echo("\n".join([_checkout(made, where), f".venv/bin/{text[2:].strip()}"]))
        return
    file, address = f"{run}.yaml", shlex.quote(f"{where.uri}/{manifest.ref.folder}")
    only = "" if task.subject.recheck else f" --only {manifest.ref}"  # the best snapshot is known only after all others
    if needed:
        file = f"{run}/{name}.yaml"
        for line in _needed(where, plan, recipe_files(parse(text, run))):
            click.echo(line)
        click.echo(f"edm2 reproduce {address} --to {shlex.quote(run)}")
    else:
        click.echo(f"edm2 reproduce {address} --experiment > {shlex.quote(file)}")
    click.echo(_checkout(made, where))
    click.echo(f".venv/bin/edm2 run {shlex.quote(file)} --store again{only}")


def _needed(store: Store, plan: Plan, recipes: list[str]) -> Iterator[str]:
    """What `--to` writes beside the experiment, in words: recipe files, and own code with its place in the store."""
    if recipes:
        yield f"# --to writes the recipe files as they were: {', '.join(recipes)}"
    for package, content in own_code(plan).items():
        if not installed(content):
            yield f"# --to writes the own code '{package}' as it was, from {code_address(store, content)}"
    yield from _to_install(plan)


def _to_install(plan: Plan) -> Iterator[str]:
    for package, content in own_code(plan).items():
        if installed(content):
            yield f"# the own code '{package}' was installed: install {installed(content)}; its files were {content.rpartition(' ')[2]}"


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


def _run_of(store: Store, ref: Ref) -> tuple[str, str, Plan, Task]:
    """The run that a result belongs to, the name of its experiment, its plan, and the result's task in it."""
    for run in list_runs(store):
        with suppress(IntegrityError):  # another run's plan may be damaged
            name, plan = load_plan(store, run)
            if (task := plan.by_ref.get(ref)) is not None:
                return run, name, plan, task
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
