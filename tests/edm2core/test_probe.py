from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edm2core.affine import Affine
from edm2core.config.settings import DiffusionSettings, NetworkSettings, ProbeSettings
from edm2core.diffusion import Denoiser
from edm2core.errors import EdmError, InputError
from edm2core.nets import build_network
from edm2core.probe import (
    PIXELS,
    Cell,
    Labelled,
    Probe,
    accuracy,
    cells_of,
    choose,
    confusion,
    denoiser_features,
    pixel_features,
    stratified_split,
)

CLASSES, AFFINE = 3, Affine()


def blobs(n: int, seed: int) -> Labelled:
    """Images whose class is the brightest row, with noise: a linear classifier can learn it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), 0, labels] += 60
    return Labelled(images, labels)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    network = NetworkSettings(resolution=8, image_channels=1, channels=32, multipliers=(1, 2), blocks=2)
    return Denoiser(build_network(network), DiffusionSettings()).eval().requires_grad_(False)


def probe_of(train: Labelled, features: Any = pixel_features, **changes: Any) -> Probe:
    return Probe(features, AFFINE, ProbeSettings(**{"epochs": 4, "batch": 32, "lr": 0.01, "flip": False, **changes}), train, CLASSES)


def trained(train: Labelled, features: Any = pixel_features, **changes: Any) -> Probe:
    probe = probe_of(train, features, **changes)
    while probe.epochs < probe.settings.epochs:
        probe.train_epoch()
    return probe


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_what_a_linear_layer_can(denoiser: Denoiser) -> None:
    train, test = blobs(240, 0), blobs(90, 1)
    on_pixels = trained(train).predict(test.images, "test")[PIXELS]
    assert accuracy(on_pixels, test.labels) > 90
    cells = [Cell(4, "out_2")]
    on_features = trained(train, denoiser_features(denoiser, cells), epochs=8).predict(test.images, "test")[cells[0]]
    assert accuracy(on_features, test.labels) > 50  # chance is 33


def test_it_is_the_same_every_time_and_fresh_noise_every_epoch(denoiser: Denoiser) -> None:
    train, features = blobs(60, 0), denoiser_features(denoiser, [Cell(4, "out_1")])
    seen: list[tuple[Any, ...]] = []

    def watched(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
        seen.append(name)
        return features(images, name)

    torch.manual_seed(1)
    first = trained(train, watched, flip=True).state()
    torch.manual_seed(2)
    assert same(first, trained(train, features, flip=True).state())
    assert not same(first, trained(train, features, flip=True, seed=1).state())
    assert len(set(seen)) == len(seen) == 1 + 4 * 2  # one look at the widths; the last batch is short, not dropped


def test_two_looks_with_one_name_are_equal_and_with_another_are_not(denoiser: Denoiser) -> None:
    cell, images = Cell(4, "out_1"), torch.zeros(4, 1, 8, 8)
    features = denoiser_features(denoiser, [cell])
    assert torch.equal(features(images, (0, 1))[cell], features(images, (0, 1))[cell])
    assert not torch.equal(features(images, (0, 1))[cell], features(images, (0, 2))[cell])


def test_features_are_those_of_the_noised_image_and_nothing_after_the_last_block_runs(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [Cell(2, "out_1"), Cell(2, "out_3"), Cell(5, "out_1")]
    ran: list[str] = []
    hooks = [block.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, block in denoiser.network.decoder.items()]
    found = denoiser_features(denoiser, cells)(torch.zeros(2, 1, 8, 8), (0,))
    for hook in hooks:
        hook.remove()
    assert list(found) == cells
    assert ran == ["out_1", "out_2", "out_3", "out_1"]
    assert all(x.dtype == torch.float32 and not x.requires_grad for x in found.values())


def test_a_cell_is_trained_as_if_alone(denoiser: Denoiser) -> None:
    train, cell = blobs(60, 0), Cell(4, "out_2")
    alone = trained(train, denoiser_features(denoiser, [cell])).heads[cell]
    among = trained(train, denoiser_features(denoiser, [Cell(3, "out_2"), Cell(4, "out_1"), cell])).heads[cell]
    for a, b in zip(alone, among, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_it_is_a_linear_layer_under_adam_with_a_cosine_by_epoch() -> None:
    train = blobs(64, 0)
    probe = probe_of(train, batch=64)
    weight, bias = (x.detach().clone().requires_grad_() for x in probe.heads[PIXELS])
    optimizer = torch.optim.Adam([weight, bias], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    x = (train.images.float() / 255 * 2 - 1).flatten(1)
    for _ in range(4):
        probe.train_epoch()
        optimizer.zero_grad()
        F.cross_entropy(F.linear(x, weight, bias), train.labels).backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(probe.heads[PIXELS][0], weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(probe.heads[PIXELS][1], bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("flip", [True, False])
def test_flips_mirror_about_half_of_the_images(flip: bool) -> None:
    left = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    left[:, :, :, 0] = 255
    seen: list[Tensor] = []

    def watched(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
        seen.append(images)
        return pixel_features(images, name)

    probe_of(Labelled(left, torch.arange(400) % 3), watched, flip=flip, batch=400).train_epoch()
    mirrored = int((seen[-1][:, 0, 0, 7] == 1).sum())
    assert 150 < mirrored < 250 if flip else mirrored == 0
    assert int((seen[-1][:, 0, 0, 0] == 1).sum()) == 400 - mirrored


def test_stopped_and_continued_gives_the_same_bits(denoiser: Denoiser) -> None:
    train, features = blobs(60, 0), denoiser_features(denoiser, [Cell(3, "out_1"), Cell(4, "out_2")])
    whole = trained(train, features, flip=True)
    first = probe_of(train, features, flip=True)
    first.train_epoch()
    first.train_epoch()
    second = probe_of(train, features, flip=True)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()})
    while second.epochs < 4:
        second.train_epoch()
    assert same(whole.state(), second.state())


def test_features_that_are_not_finite_are_an_error() -> None:
    def broken(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
        return {Cell(4, "out_1"): images.flatten(1) * float("nan")}

    with pytest.raises(EdmError, match="not finite at t 4, out_1"):
        probe_of(blobs(9, 0), broken).train_epoch()


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


def test_blocks_and_levels_that_do_not_exist_are_named() -> None:
    with pytest.raises(InputError, match="no block out_9") as caught:
        cells_of(ProbeSettings(blocks=("out_1", "out_9")), ["out_1", "out_2"])
    assert "out_1, out_2" in caught.value.do_next
    with pytest.raises(InputError, match="no level 19"):
        cells_of(ProbeSettings(t=(19,), blocks=("out_1",)), ["out_1"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.01, 0.9), st.integers(0, 5))
def test_a_split_is_stratified_and_complete(counts: list[int], share: float, seed: int) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    kept, held = stratified_split(labels, share, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        number = int((labels[held] == label).sum())
        assert 1 <= number < count
        assert abs(number - share * count) <= 1


def test_confusion_counts_true_classes_in_rows() -> None:
    matrix = confusion(torch.tensor([0, 2, 2, 1]), torch.tensor([0, 1, 1, 1]), 3)
    assert matrix.tolist() == [[1, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_of_equal_cells_the_first_is_chosen() -> None:
    assert choose({Cell(3, "a"): 50.0, Cell(4, "a"): 60.0, Cell(5, "a"): 60.0}) == Cell(4, "a")
