"""Counts how often an own solver evaluates the network, without one: `python -m edm2core.conformance.count_solver SETTINGS FOLDER`.

It prints the noise levels of the evaluations as JSON.
"""

import json
import sys
from functools import partial
from pathlib import Path

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.noise_levels import levels_of
from edm2core.diffusion.solvers import checked, evaluated_levels
from edm2core.registry import load, own_package
from edm2core.store.own_code import import_from


def main(settings: str, folder: str) -> None:
    sample = SampleSettings.model_validate_json(settings)
    import_from(Path(folder), own_package(sample.solver))
    solver = checked(sample.solver, partial(load(sample.solver), **sample.options_of("solver")))
    print(json.dumps(evaluated_levels(solver, levels_of(sample).tolist())))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
