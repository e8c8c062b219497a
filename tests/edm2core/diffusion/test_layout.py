import subprocess
import sys

import pytest
import torch

from edm2core.config import load_recipe, recipe_names
from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.denoiser import build_network
from edm2core.diffusion.layout import block_widths, layout

SETTINGS = NetworkSettings(resolution=8, channels=32, multipliers=(1, 2), blocks=2, attention_resolutions=(8,))


def test_blocks_stand_in_the_order_they_run() -> None:
    assert [(f"{block.part}.{block.name}", block.inputs, block.outputs, block.side, block.skip) for block in layout(SETTINGS)] == [
        ("encoder.0", 32, 32, 8, 0),
        ("encoder.1", 32, 32, 4, 0),
        ("encoder.2", 32, 64, 4, 0),
        ("middle.0", 64, 64, 4, 0),
        ("middle.1", 64, 64, 4, 0),
        ("decoder.out_1", 128, 64, 4, 64),
        ("decoder.out_2", 96, 64, 4, 32),
        ("decoder.out_3", 64, 64, 8, 0),
        ("decoder.out_4", 96, 32, 8, 32),
        ("decoder.out_5", 64, 32, 8, 32),
    ]
    assert [block.name for block in layout(SETTINGS) if block.attention] == ["0", "0", "out_4", "out_5"]
    assert {block.name: block.resample for block in layout(SETTINGS) if block.resample} == {"1": "down", "out_3": "up"}


def test_middle_blocks_are_of_the_kind_that_the_settings_name() -> None:
    for kind in ("encoder", "decoder"):
        blocks = layout(SETTINGS.model_copy(update={"middle": kind}))
        assert [block.kind for block in blocks if block.part == "middle"] == [kind, kind]


@pytest.mark.parametrize(("recipe", "count"), [("cifar10/C", 15), ("tinyimagenet/E", 23)])
def test_the_probes_blocks_are_numbered_through_the_decoder(recipe: str, count: int) -> None:
    assert list(block_widths(load_recipe(recipe).network)) == [f"out_{number}" for number in range(1, count + 1)]


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_networks_modules_are_those_of_its_layout(recipe: str) -> None:
    network = load_recipe(recipe).network
    with torch.device("meta"):
        built = build_network(network)
    assert [name for name, module in built.named_modules() if module in built.blocks] == [
        f"{block.part}.{block.name}" for block in layout(network)
    ]
    assert block_widths(network) == {name: block.conv2.weight.shape[0] for name, block in built.decoder.items()}


def test_planning_reads_a_layout_without_torch() -> None:
    code = "import sys; import edm2core.diffusion.layout; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
