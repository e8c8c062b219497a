"""edm2 reproduce"""

import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from edm2core.config.given import FILES, text_of, text_with
from edm2core.config.settings import Recipe
from edm2core.config.yaml_file import Document, parse
from edm2core.errors import InputError, IntegrityError, MissingError
from edm2core.own_code.settings import as_written
from edm2core.own_code.source import content_digest
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task
from edm2core.registry import WEIGHTS
from edm2core.store import find_store, split_address
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import list_runs, load_plan
from edm2core.store.uploaded_sources import PACKED, stored_path, take
from pipelines.cli.options import FOLDER, store_option

NOTE = "  # by edm2 reproduce"
ENDINGS = (".yaml", ".yml")


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


def recipe_files(experiment: Document) -> list[str]:
    """The recipe files that an experiment names, as it writes them."""
    return [each for each in experiment.values.get("recipes", []) if str(each).endswith(ENDINGS)]


def own_code(plan: Plan) -> dict[str, str]:
    """The own code that a plan's tasks run: package → its content, as keys hold it."""
    return {name: content for task in plan for name, content in task.code.items()}


def installed(content: str) -> str:
    """The distribution that own code came from, as name==version; empty if it lay beside its experiment."""
    return content.rpartition(" ")[0]


def code_address(store: Store, content: str) -> str:
    """Where a store has the files of own code."""
    return f"{store.uri}/{stored_path(content_digest(content))}{PACKED}"


def write_experiment(name: str, text: str, plan: Plan, store: Store, folder: Path) -> list[Path]:
    """Write a run's experiment into a new folder as NAME.yaml, with what it names beside it. Returns the files and packages.

    Recipe files are written in full, as the plan has them, so their paths are whole. Own code is unpacked from the store and verified.
    Own code of an installed distribution is not written, since it must be installed. Raises InputError for a folder that holds something,
    and for a recipe file that the plan does not tell; MissingError if the store lacks own code; IntegrityError if that is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"There is a {folder} already.", where="--to", do_next="Name a new folder.")
    document = parse(text, "experiment.yaml")
    recipes = dict(_recipes(document, plan))
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.yaml"]
    written[0].write_text(text_with(text, document.values, _moved(document, plan, recipes), NOTE), encoding="utf-8")
    swept = document.values.get("sweep", {})
    for file, recipe in recipes.values():
        known = {name: value for name, value in as_written(recipe, swept).items() if value is not None}
        written.append(folder / file)
        written[-1].write_text(text_of(known), encoding="utf-8")
    for package, content in own_code(plan).items():
        if not installed(content):
            written += _unpacked(store, package, content, folder)
    return written


def _recipes(experiment: Document, plan: Plan) -> Iterator[tuple[str, tuple[str, Recipe]]]:
    """For each recipe file that the experiment names: a name for the new file, and the recipe at its first point of a sweep."""
    named = {task.subject.recipe: task.subject.sweep.of for task in plan if task.subject.sweep}
    of: dict[str, Recipe] = {}
    for name, recipe in plan.recipes.items():
        base = named.get(name, name)
        of.setdefault(base, recipe.model_copy(update={"name": base}))
    left = {name: recipe for name, recipe in of.items() if name not in experiment.values["recipes"]}
    files = recipe_files(experiment)
    matched = {file: left.pop(title) for file in files if (title := f"own/{Path(file).stem}") in left}
    others = [file for file in files if file not in matched]
    if len(others) > 1 or len(others) != len(left):
        what = f"The run's plan does not tell which of its recipes were in {', '.join(others) or ', '.join(files)}."
        raise InputError(what, where="experiment.yaml", do_next="Take the experiment with --experiment, and put these files beside it.")
    matched |= dict(zip(others, left.values(), strict=True))
    taken: set[str] = set()
    for file in files:
        stem, number = Path(file).stem, 1
        while (new := f"recipe-{stem}{'' if number == 1 else f'-{number}'}.yaml") in taken:
            number += 1
        taken.add(new)
        yield file, (new, matched[file])


def _moved(experiment: Document, plan: Plan, recipes: Mapping[str, tuple[str, Recipe]]) -> dict[str, Any]:
    """The experiment's settings with paths that hold in another folder."""
    values = dict(experiment.values)
    values["recipes"] = [recipes[each][0] if each in recipes else each for each in values["recipes"]]
    if values.get("code") is not None:
        values["code"] = "."
    for task in plan:
        kind = WEIGHTS.get(str(task.settings.get("extractor")), "") if task.stage == "extractor" else ""
        if values.get(f"{kind}_weights") and task.settings.get("source"):
            values[f"{kind}_weights"] = task.settings["source"]
    for setting in values.get("overrides", {}).keys() & set(FILES):
        section, _, name = setting.partition(".")
        whole = next((getattr(each, name) for recipe in plan.recipes.values() if (each := getattr(recipe, section))), None)
        values["overrides"] = {**values["overrides"], setting: whole or values["overrides"][setting]}
    return values


def _unpacked(store: Store, package: str, content: str, folder: Path) -> Iterator[Path]:
    """Write a package of own code below the folder, from its verified files in the store."""
    with tempfile.TemporaryDirectory() as scratch:
        source = take(store, content_digest(content), Path(scratch))
        if source is None:
            what = f"The store has no longer the own code '{package}' that made the result."
            raise MissingError(what, where=code_address(store, content), do_next=f"Put files of the content {content} there.")
        shutil.copytree(source, folder, dirs_exist_ok=True)
        yield from (folder / each.name for each in sorted(source.iterdir()))
