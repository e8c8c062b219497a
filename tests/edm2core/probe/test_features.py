from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomCrop

from edm2core.diffusion.denoiser import Denoiser
from edm2core.errors import EdmError
from edm2core.probe import features as sources
from edm2core.probe.cells import PIXELS, Cell, Features, denoiser_features, pixel_features
from edm2core.probe.features import Labelled, crop
from tests.probe_study import Study, blobs, only_pixels

CELLS = [Cell(4, "out_1"), Cell(4, "out_2"), Cell(5, "out_2"), Cell(5, "out_5")]


class Watched:
    """Pixel features that remember what they were asked for."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []
        self.names: list[tuple[Any, ...]] = []

    def __call__(self, cells: Sequence[Cell]) -> Features:
        def features(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
            self.images.append(images)
            self.names.append(name)
            return pixel_features(images, name)

        return features


def one_epoch(study: Study, epoch: int = 0, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Features [n, width] of the first group's first cell, and labels [n]."""
    index = torch.arange(len(study.data.train)) if index is None else index
    batches = list(study.source.batches(study.cells, index, 0, epoch, study.settings.batch))
    return torch.cat([features[0][0] for features, _ in batches]), torch.cat([labels for _, labels in batches])


def left_half(n: int) -> Labelled:
    images = torch.zeros(n, 1, 8, 8, dtype=torch.uint8)
    images[:, :, :, 0] = 255
    return Labelled(images, torch.arange(n) % 3)


def test_fresh_features_have_new_noise_in_every_batch() -> None:
    watched = Watched()
    Study(blobs(60, 0), watched).trained()
    assert len(set(watched.names)) == len(watched.names) == 1 + 4 * 2  # one look at the widths


@pytest.mark.parametrize("flip", [True, False])
def test_flips_mirror_about_half_of_the_images(flip: bool) -> None:
    seen, _ = one_epoch(Study(left_half(400), flip=flip, batch=400))
    mirrored = int((seen.view(-1, 8, 8)[:, 0, 7] == 1).sum())
    assert 150 < mirrored < 250 if flip else mirrored == 0
    assert int((seen.view(-1, 8, 8)[:, 0, 0] == 1).sum()) == 400 - mirrored


def test_a_crop_is_one_that_torchvision_could_have_taken() -> None:
    images = torch.rand(50, 3, 8, 6)
    cropped = crop(images, 2, -1.0, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (2,) * 4, value=-1.0)
    places = set()
    for one, of in zip(cropped, padded, strict=True):
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(one, of[:, y : y + 8, x : x + 6])]
        assert len(found) == 1
        places.add(found[0])
    assert len(places) > 15  # of 25
    assert RandomCrop((8, 6), 2, fill=-1)(images[0]).shape == cropped[0].shape


def test_crops_pad_with_black_and_come_in_the_published_way_too() -> None:
    white = Labelled(torch.full((200, 1, 8, 8), 255, dtype=torch.uint8), torch.arange(200) % 3)
    seen, _ = one_epoch(Study(white, crop=2, batch=200))
    corners = seen.view(-1, 8, 8)[:, 0, 0]
    assert set(corners.tolist()) == {-1.0, 1.0}
    plain, _ = one_epoch(Study(white, batch=200))
    assert bool((plain == 1).all())


def test_an_epoch_of_cached_features_has_every_image_once_in_one_of_its_looks(tmp_path: Path) -> None:
    train = blobs(400, 0)
    study = Study(train, only_pixels, folder=tmp_path, flip=True)
    scaled = train.images.float() / 255 * 2 - 1
    looks = {0: scaled.flatten(1), 1: scaled.flip(3).flatten(1)}
    order = [(features, labels) for features, labels in (one_epoch(study, epoch) for epoch in range(2))]
    found = []
    for features, labels in order:
        which = torch.cdist(features, torch.cat([looks[0], looks[1]])).argmin(dim=1)
        assert sorted((which % 400).tolist()) == list(range(400))
        assert torch.equal(train.labels[which % 400], labels)
        found.append(dict(zip((which % 400).tolist(), (which // 400).tolist(), strict=True)))
    assert 150 < sum(found[0].values()) < 250  # about half of the images are mirrored in an epoch
    assert all(found[0][image] != found[1][image] for image in range(400))  # and those the other way round in the next


def test_cached_features_are_the_networks_in_half_precision(denoiser: Denoiser, tmp_path: Path) -> None:
    train = blobs(300, 0)
    asked: list[tuple[Any, ...]] = []
    found: dict[tuple[Any, ...], dict[Cell, Tensor]] = {}

    def features(cells: Sequence[Cell]) -> Features:
        inner = denoiser_features(denoiser, cells)

        def remembered(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
            asked.append(name)
            found[name] = inner(images, name)
            return found[name]

        return remembered

    study = Study(train, features, CELLS, tmp_path)
    blocks = [(draw, begin) for draw in range(2) for begin in (0, 256)]
    assert asked[1:] == [(0, "train", "look", *block) for block in blocks] + [(0, "test", "look", 0, 0)]
    (batch,) = list(study.source.look(CELLS, "train", torch.arange(300), 0))
    for group, cells in zip(batch[0], study.source.groups(CELLS), strict=True):
        for got, cell in zip(group, cells, strict=True):
            wanted = torch.cat([found[0, "train", "look", 0, begin][cell] for begin in (0, 256)])
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    count = len(asked)
    study.trained()
    assert len(asked) == count  # the network is not asked again


def test_cached_features_take_what_is_said_and_are_held_in_parts(
    denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(blobs(60, 0), lambda cells: denoiser_features(denoiser, cells), CELLS, tmp_path)
    assert isinstance(study.source, sources.Cached)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == study.source.bytes
    whole = study.source.parts(CELLS)
    assert [len(part) for part in whole] == [3, 1]  # one width at a time
    monkeypatch.setattr(sources, "PART_BYTES", 2 * 2 * 60 * 64 * 2)  # two cells of width 64
    assert [len(part) for part in study.source.parts(CELLS)] == [2, 1, 1]


def test_too_little_space_is_said_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    watched = Watched()
    with pytest.raises(EdmError, match=r"take 0\.0 GB, and 0\.0 GB are free") as caught:
        Study(blobs(60, 0), watched, folder=tmp_path)
    assert "probe.features: fresh" in caught.value.do_next
    assert len(watched.names) == 1  # the widths


def test_features_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EdmError, match="t 0, pixels do not fit into half precision"):
        Study(blobs(9, 0), lambda _: lambda images, name: {PIXELS: images.flatten(1) * 1e6}, folder=tmp_path)
