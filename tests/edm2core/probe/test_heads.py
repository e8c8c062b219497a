from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edm2core.diffusion.denoiser import Denoiser
from edm2core.errors import EdmError
from edm2core.probe.cells import PIXELS, Cell, Features, denoiser_features
from edm2core.probe.scores import accuracy
from tests.probe_study import Study, blobs

CELLS = [Cell(3, "out_1"), Cell(4, "out_2"), Cell(4, "out_5")]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def of(denoiser: Denoiser) -> Any:
    return lambda cells: denoiser_features(denoiser, cells)


def test_a_head_learns_linearly_separable_classes(denoiser: Denoiser) -> None:
    pixels = Study(blobs(240, 0))
    assert accuracy(pixels.predictions(pixels.trained())[PIXELS][:, 0], pixels.data.test.labels) > 90
    cell = Cell(4, "out_2")
    features = Study(blobs(240, 0), of(denoiser), [cell], epochs=8)
    assert accuracy(features.predictions(features.trained())[cell][:, 0], features.data.test.labels) > 50  # chance is 33


def test_it_is_the_same_every_time_and_another_with_another_seed(denoiser: Denoiser) -> None:
    study = Study(blobs(60, 0), of(denoiser), CELLS, flip=True)
    torch.manual_seed(1)
    first = study.trained().state()
    torch.manual_seed(2)
    assert same(first, study.trained().state())
    assert not same(first, study.trained(seed=1).state())


def test_a_cell_is_trained_as_if_alone(denoiser: Denoiser) -> None:
    cell = CELLS[1]
    ((alone_w, alone_b),) = Study(blobs(60, 0), of(denoiser), [cell]).trained().parameters
    study = Study(blobs(60, 0), of(denoiser), CELLS)
    heads = study.trained()
    assert len(heads.groups) == 2  # two widths
    group = next(number for number, group in enumerate(heads.groups) if cell in group)
    weight, bias = heads.parameters[group]
    row = heads.groups[group].index(cell)
    torch.testing.assert_close(weight[row], alone_w[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bias[row], alone_b[0], rtol=1e-4, atol=1e-5)


def test_it_is_a_linear_layer_under_adam_with_a_cosine_by_epoch() -> None:
    study = Study(blobs(64, 0), batch=64)
    heads = study.heads()
    ((stacked_weight, stacked_bias),) = heads.parameters
    weight, bias = (x.detach()[0].clone().requires_grad_() for x in (stacked_weight, stacked_bias))
    optimizer = torch.optim.Adam([weight, bias], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    train = study.data.train
    x = (train.images.float() / 255 * 2 - 1).flatten(1)
    for _ in range(4):
        study.epoch(heads)
        optimizer.zero_grad()
        F.cross_entropy(F.linear(x, weight, bias), train.labels).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(stacked_weight[0], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stacked_bias[0], bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_stopped_and_continued_gives_the_same_bits(denoiser: Denoiser, tmp_path: Path, cached: bool) -> None:
    study = Study(blobs(60, 0), of(denoiser), CELLS, tmp_path if cached else None, flip=True)
    whole, first, second = study.trained(), study.heads(), study.heads()
    study.epoch(first)
    study.epoch(first)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    while second.epochs < 4:
        study.epoch(second)
    assert same(whole.state(), second.state())


def test_the_likeliest_classes_come_in_order() -> None:
    study = Study(blobs(60, 0))
    heads = study.trained()
    first, three = study.predictions(heads)[PIXELS], study.predictions(heads, 3)[PIXELS]
    assert torch.equal(first[:, 0], three[:, 0])
    assert all(sorted(row) == [0, 1, 2] for row in three.tolist())
    assert accuracy(three, study.data.test.labels) == 100


def test_features_that_are_not_finite_are_an_error() -> None:
    def broken(cells: Sequence[Cell]) -> Features:
        return lambda images, name: {Cell(4, "out_1"): images.flatten(1) * float("nan")}

    study = Study(blobs(9, 0), broken, [Cell(4, "out_1")])
    with pytest.raises(EdmError, match="not finite at t 4, out_1"):
        study.epoch(study.heads())
