"""edm2 export"""

from pathlib import Path

import click

import edm2
from pipelines.cli.options import FOLDER, snapshot_argument, store_option


@click.command()
@snapshot_argument
@click.option("--out", type=FOLDER, required=True, help="The new folder.")
@click.option("--ema", help="The average: fixed, or a relative width (default: the first that the recipe samples from).")
@click.option("--diffusers", is_flag=True, help="Write a pipeline for diffusers too. Loading it needs this package and trust_remote_code.")
@store_option
def command(snapshot: str, out: Path, ema: str | None, diffusers: bool, store: str) -> None:
    """Write SNAPSHOT into a new folder: its weights as safetensors, their description, and a model card, README.md.

    SNAPSHOT is RUN:RECIPE/SEED/EPOCH, where seed and epoch may be left out, or STORE/results/snapshot/KEY.
    The card says what was trained, on what, and what the run measured. `edm2 sample` and `edm2.find_snapshot` read the folder.
    """
    folder = edm2.export(edm2.find_snapshot(snapshot, store=store, ema=ema), out, diffusers=diffusers)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        click.echo(f"{file}  {file.stat().st_size:,} bytes")
