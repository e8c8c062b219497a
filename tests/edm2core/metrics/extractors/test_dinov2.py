import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edm2core.metrics.extractors.dinov2 import DinoV2

VECTOR = (
    Path(__file__).parents[3] / "data" / "dinov2.json"
)  # class tokens by Hugging Face's transformers 4.49.0, of these weights and images


def uniform(generator: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor((generator.random(shape) - 0.5) * 0.3, dtype=torch.float32)


def tiny_weights(width: int = 64, depth: int = 2, grid: int = 16) -> dict[str, Tensor]:
    """Every name of the authors' files, with random numbers that do not depend on any library's version."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        maps = {"attn.qkv": 3 * width, "attn.proj": width, "mlp.fc1": 4 * width, "mlp.fc2": width}
        for name, outputs in maps.items():
            inputs = 4 * width if name == "mlp.fc2" else width
            shapes |= {f"blocks.{block}.{name}.weight": (outputs, inputs), f"blocks.{block}.{name}.bias": (outputs,)}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{block}.{name}"] = (width,)
    generator = np.random.Generator(np.random.Philox(0))
    scales = ("norm.weight", "norm1.weight", "norm2.weight", "gamma")
    return {name: uniform(generator, *shapes[name]) + name.endswith(scales) for name in sorted(shapes)}


def images(side: int = 32) -> Tensor:
    return torch.tensor(np.random.Generator(np.random.Philox(1)).random((3, 3, side, side)) * 256).to(torch.uint8)


def build(weights: dict[str, Tensor]) -> DinoV2:
    return DinoV2("tiny", ["cls"], weights).eval().requires_grad_(False)


def test_it_agrees_with_another_implementation() -> None:
    (found,) = build(tiny_weights())(images())
    torch.testing.assert_close(found, torch.tensor(json.loads(VECTOR.read_text())), rtol=1e-4, atol=1e-5)


def test_positions_of_another_grid_are_interpolated_smoothly() -> None:
    weights = tiny_weights(grid=37)
    line = torch.linspace(0, 1, 37)
    weights["pos_embed"][0, 1:, 0] = line.repeat_interleave(37)  # grows from top to bottom
    weights["pos_embed"][0, 1:, 1] = 7.0
    found = build(weights)._positions(16)
    assert found.shape == (1, 257, 64)
    torch.testing.assert_close(found[:, 0], weights["pos_embed"][:, 0])
    torch.testing.assert_close(found[0, 1:, 1], torch.full((256,), 7.0))
    rows = found[0, 1:, 0].reshape(16, 16)
    torch.testing.assert_close(rows, rows[:, :1].expand(16, 16))
    assert (rows[:, 0].diff() > 0).all()


@pytest.mark.parametrize("wrong", [torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.zeros(2, 3, 32, 32)])
def test_it_takes_only_colour_images_of_bytes(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="wants uint8"):
        build(tiny_weights())(wrong)


@pytest.mark.parametrize("name", ["blocks.1.ls2.gamma", "norm.bias", "cls_token"])
def test_weights_that_lack_something_are_refused(name: str) -> None:
    weights = tiny_weights()
    del weights[name]
    with pytest.raises((RuntimeError, KeyError), match=name):
        build(weights)
