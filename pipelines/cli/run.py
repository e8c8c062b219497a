"""edm2 run"""

import shlex
import sys
from pathlib import Path

import click

from components.launcher.profile import load_profile
from edm2core.config.given import Given
from edm2core.plan.experiment import load_experiment
from pipelines.cli.options import accept_code_option, cluster_option, experiment_argument, set_option, store_option
from pipelines.run.places import here, on_cluster
from pipelines.run.run_experiment import run
from pipelines.run.terminal import open_console


@click.command()
@experiment_argument
@set_option
@store_option
@cluster_option
@click.option("--jobs", type=click.IntRange(1, 64), help="Tasks side by side (default: as many as cores allow, at most 4; 1 on GPUs).")
@click.option("--processes", type=click.IntRange(1, 64), help="Processes of one training (default: one for each GPU, else 1).")
@click.option("--only", metavar="STAGE/KEY", help="Only this result and what it needs.")
@click.option("--train-again", is_flag=True, help="Train again where the store has lost a snapshot but still has results made of it.")
@accept_code_option
def command(
    experiment: Path,
    given: tuple[Given, ...],
    store: str,
    cluster: str | None,
    jobs: int | None,
    processes: int | None,
    only: str | None,
    train_again: bool,
    accept_code: bool,
) -> None:
    """Run EXPERIMENT: prepare, train, sample, measure, report. On this machine, or with --cluster as jobs there that it drives.

    EXPERIMENT is a file, or the name of a bundled one, such as demo.
    After any interruption, the same command goes on where it stopped. Running a finished experiment again takes seconds.
    """
    console, read = open_console(), load_experiment(experiment, given)
    place = on_cluster(load_profile(cluster), console.print) if cluster else here(store, jobs, processes)
    done = run(read, place, console, only, train_again, accept_code, shlex.join(["edm2", *sys.argv[1:]]))
    console.print(f"report: {done.store.uri}/{done.folder}/report.html")
