"""Counts what own code costs: `python -m edm2core.conformance.count networks|solvers SETTINGS FOLDER`.

Of a network it prints [operations of one forward for one image, parameters] as JSON, counted on torch's meta device. Of a solver it prints
the noise levels at which it evaluates the network, without one.
"""

import json
import sys
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from edm2core.config.settings import OwnNetworkSettings, SampleSettings
from edm2core.diffusion.noise_levels import levels_of
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.solvers import checked, evaluated_levels
from edm2core.registry import load, own_package
from edm2core.store.own_code import import_from


def networks(settings: str, folder: Path) -> list[int]:
    network = OwnNetworkSettings.model_validate_json(settings)
    import_from(folder, own_package(network.use))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        built = OwnNetwork(network).eval()
        built(torch.zeros(1, network.image_channels, network.resolution, network.resolution), torch.zeros(1))
    return [counter.get_total_flops(), sum(p.numel() for p in built.parameters())]


def solvers(settings: str, folder: Path) -> list[float]:
    sample = SampleSettings.model_validate_json(settings)
    import_from(folder, own_package(sample.solver))
    solver = checked(sample.solver, partial(load(sample.solver), **sample.options_of("solver")))
    return evaluated_levels(solver, levels_of(sample).tolist())


if __name__ == "__main__":
    kind, settings, folder = sys.argv[1:]
    print(json.dumps({"networks": networks, "solvers": solvers}[kind](settings, Path(folder))))  # noqa: T201
