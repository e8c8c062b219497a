"""edm2 sample"""

from pathlib import Path

import click

import edm2
from edm2core.errors import InputError
from pipelines.cli.options import PATH, force_option, snapshot_argument, store_option


@click.command()
@snapshot_argument
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="How many images.")
@click.option("--out", type=PATH, default="grid.png", show_default=True, help="A .png, which becomes a grid in rows of 8, or a .npy.")
@click.option("--seed", type=click.IntRange(0), help="Of the noise (default: the recipe's, so that the images are the run's own first).")
@click.option("--steps", type=click.IntRange(2), help="Noise levels (default: the recipe's, else 18).")
@click.option("--ema", help="The average: fixed, or a relative width (default: the first that the recipe samples from).")
@force_option
@store_option
def command(snapshot: str, count: int, out: Path, seed: int | None, steps: int | None, ema: str | None, force: bool, store: str) -> None:
    """Draw images from SNAPSHOT and write them as one picture, or as an array uint8 [N, C, H, W].

    SNAPSHOT is RUN:RECIPE/SEED/EPOCH, where seed and epoch may be left out, or STORE/results/snapshot/KEY, or a folder of `edm2 export`.
    Nothing is added to the store.
    """
    if out.suffix not in (".png", ".npy"):
        raise InputError(f"{out} is neither a .png nor a .npy.", where="--out", do_next="Give a file with one of these endings.")
    if out.exists() and not force:
        raise InputError(f"There is a {out} already.", where="--out", do_next="Name another file, or say --force.")
    if not out.parent.is_dir():
        raise InputError(f"There is no folder {out.parent}.", where="--out", do_next="Make it, or name another file.")
    found = edm2.find_snapshot(snapshot, store=store, ema=ema)
    given = {name: value for name, value in (("seed", seed), ("steps", steps)) if value is not None}
    images = edm2.sample(found.load(), count, guide=found.load_guide(), **{**found.sampling, **given})
    edm2.write_images(out, images)
    click.echo(f"{found.title} · EMA {found.ema}: {count} images in {out}")
