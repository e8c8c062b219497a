"""edm2 run"""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from pipelines.cli.options import experiment_argument, store_option
from pipelines.run import Here, run


@click.command(short_help="Run an experiment and write its report.")
@experiment_argument
@store_option
@click.option("--jobs", type=click.IntRange(1, 64), help="Tasks side by side (default: as many as cores allow, at most 4; 1 on GPUs).")
@click.option("--processes", type=click.IntRange(1, 64), help="Processes of one training (default: one for each GPU, else 1).")
def command(experiment: Path, store: str, jobs: int | None, processes: int | None) -> None:
    """Run EXPERIMENT on this machine: prepare, train, sample, measure, report.

    Whatever interrupts it, the same command goes on where it stopped; a second run of a finished experiment takes seconds.
    """
    console = Console(highlight=False)
    done = run(experiment, store, Here.detect(jobs, processes), console)
    console.print(f"report: {done.store.uri}/{done.folder}/report.html", soft_wrap=True)
