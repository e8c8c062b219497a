"""edm2 check"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from edm2core.config.given import Given
from edm2core.config.yaml_file import Document, Origin
from edm2core.errors import EdmError, InputError
from edm2core.events import parse
from edm2core.own_code.families import FAMILIES, METRIC, guessed
from edm2core.own_code.requirements import missing
from edm2core.own_code.settings import Library, typed_values
from edm2core.registry import is_own, meant_address
from pipelines.cli import options

EVERY = {family.words: family for family in (*FAMILIES, METRIC)}


@click.command()
@click.argument("address", metavar="MODULE:CALLABLE")
@click.option("--as", "words", type=click.Choice(list(EVERY)), help="What it is (default: as its first parameters say).")
@click.option("--code", type=options.FOLDER, default=Path(), help="The folder that its module or package lies in (default: this one).")
@options.set_option
@click.option("--channels", default=3, show_default=True, help="Colour channels of the images that it is tried on.")
@click.option("--resolution", default=32, show_default=True, help="Their side in pixels.")
@click.option("--classes", default=10, show_default=True, help="Their classes; 0 makes a network unconditional.")
def command(address: str, words: str | None, code: Path, given: tuple[Given, ...], channels: int, resolution: int, classes: int) -> int:
    """Check code of your own, such as my_nets:TinyDiT, before anything is run with it.

    It runs in a process of its own. --set gives its settings. The exit code is 1 if there is a problem.
    """
    if not is_own(address):
        meant = meant_address(address)
        do_next = f"Give MODULE:CALLABLE, as in an experiment{f': {meant}' if meant else ''}."
        raise InputError(f"'{address}' is no address of own code.", where="edm2 check", do_next=do_next)
    library, where = Library(code, do_next="Name its folder by --code, or install it."), "edm2 check"
    family = EVERY[words] if words else guessed(library.package(address, where), address, where)
    signature = library.signature(family, address, where)
    document = Document({each.name: each.value for each in given}, {(): Origin(where)})
    own = typed_values(family.section, signature.settings, document)
    package, problems = library.package(address, where), 0
    click.echo(f"{'ok':<8} {address} is {family.article} {family.words}: {signature.where}")
    for module, file in missing(package):
        click.echo(f"{'problem':<8} {file} imports '{module}', which is not installed here → Install it where tasks run.")
        problems += 1
    with tempfile.TemporaryDirectory() as folder:
        package.copy(Path(folder))
        images = {"channels": channels, "resolution": resolution, "classes": classes}
        asked = {"address": address, "family": family.words, "own": own, "images": images, "folder": folder}
        return int(_checked(asked) + problems > 0)


def _checked(asked: dict[str, Any]) -> int:
    """Print each outcome as it comes; returns how many are problems. The process finds no other file than the package's, as a task does."""
    command, problems, rest = [sys.executable, "-m", "edm2core.conformance", json.dumps(asked)], 0, list[str]()
    with subprocess.Popen(
        command, cwd=asked["folder"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    ) as process:
        for line in process.stdout or ():
            event = parse(line.rstrip("\n"))
            if event is None:
                rest.append(line)
            elif event["kind"] == "check":
                problems += event["state"] == "problem"
                name = f"{event['name']}: " if event["name"] else ""
                click.echo(f"{event['state']:<8} {name}{event['what']}" + (f" → {event['do_next']}" if event["do_next"] else ""))
                for own in event.get("lines", []):
                    click.echo(f"         {own}")
    if process.returncode:
        raise EdmError("The check ended by itself.", where=asked["address"], do_next="".join(rest[-8:]))
    return problems
