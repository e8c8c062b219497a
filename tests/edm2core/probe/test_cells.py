from collections.abc import Sequence

import pytest
import torch

from edm2core.config.settings import ProbeSettings
from edm2core.diffusion.denoiser import Denoiser
from edm2core.probe.cells import Cell, cells_of, denoiser_features


def test_features_depend_on_the_name_of_their_noise(denoiser: Denoiser) -> None:
    cell, images = Cell(4, "out_1"), torch.zeros(4, 1, 8, 8)
    features = denoiser_features(denoiser, [cell])
    assert torch.equal(features(images, (0, 1))[cell], features(images, (0, 1))[cell])
    assert not torch.equal(features(images, (0, 1))[cell], features(images, (0, 2))[cell])


def test_features_are_those_of_the_noised_image_and_nothing_after_the_last_block_runs(denoiser: Denoiser) -> None:
    cells = [Cell(2, "out_1"), Cell(2, "out_3"), Cell(5, "out_1")]
    ran: list[str] = []
    hooks = [block.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, block in denoiser.network.decoder.items()]
    found = denoiser_features(denoiser, cells)(torch.zeros(2, 1, 8, 8), (0,))
    for hook in hooks:
        hook.remove()
    assert list(found) == cells
    assert ran == ["out_1", "out_2", "out_3", "out_1"]
    assert all(x.dtype == torch.float32 and not x.requires_grad for x in found.values())


@pytest.mark.parametrize(
    ("t", "blocks", "expected"),
    [
        ((4,), ("out_2",), [Cell(4, "out_2")]),
        ((3, 4), ("out_2", "out_1"), [Cell(3, "out_2"), Cell(3, "out_1"), Cell(4, "out_2"), Cell(4, "out_1")]),
        ((5,), ("all",), [Cell(5, "out_1"), Cell(5, "out_2")]),
        ((5, 5), ("out_1",), [Cell(5, "out_1")]),
    ],
)
def test_cells_are_the_product_of_levels_and_blocks(t: Sequence[int], blocks: Sequence[str], expected: list[Cell]) -> None:
    assert cells_of(ProbeSettings(t=tuple(t), blocks=tuple(blocks)), ["out_1", "out_2"]) == expected
