"""Counts what an own network costs, on torch's meta device: `python -m edm2core.conformance.count SETTINGS FOLDER`.

It prints [operations of one forward for one image, parameters] as JSON.
"""

import json
import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from edm2core.config.settings import OwnNetworkSettings
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.registry import own_package
from edm2core.store.own_code import import_from


def main(settings: str, folder: str) -> None:
    network = OwnNetworkSettings.model_validate_json(settings)
    import_from(Path(folder), own_package(network.use))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        built = OwnNetwork(network).eval()
        built(torch.zeros(1, network.image_channels, network.resolution, network.resolution), torch.zeros(1))
    print(json.dumps([counter.get_total_flops(), sum(p.numel() for p in built.parameters())]))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
