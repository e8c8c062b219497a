"""Runs an experiment on this machine from Python."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from edm2.stores import OpenRun
from edm2core.plan.experiment import experiment_of, load_experiment
from edm2core.store import default_store
from pipelines.run.places import here
from pipelines.run.run_experiment import run as run_here
from pipelines.run.terminal import open_console


def run(
    experiment: str | Path | Mapping[str, Any],
    *,
    store: str | Path | None = None,
    jobs: int | None = None,
    processes: int | None = None,
    quiet: bool = False,
) -> OpenRun:
    """Run an experiment, a file or a dictionary of its settings, and return its run. Another call with the same goes on where it stopped.

    `jobs` and `processes` are those of `edm2 run`. Raises InputError for a wrong setting, EdmError if a task failed.
    """
    read = experiment_of(experiment) if isinstance(experiment, Mapping) else load_experiment(Path(experiment))
    console = Console(quiet=True) if quiet else open_console()
    return OpenRun(run_here(read, here(default_store(store), jobs, processes), console))
