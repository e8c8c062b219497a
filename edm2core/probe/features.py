"""Sources of a probe's features: the network computes them anew in every epoch, or once and they are read from disk."""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.config.settings import ProbeSettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.layers import mirrored
from edm2core.errors import EdmError
from edm2core.probe.cells import Cell, FeaturesOf, generator, grouped

BLOCK = 256  # images whose cached features are computed together; their noise depends on it
PART_BYTES = 2**29  # of cached features in memory at once
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Batch = tuple[list[Tensor], Tensor]
"""Features [cells, n, width] of each group of cells, float32, and the labels [n]."""
Progress = Callable[[int, int], None]
"""Is told how many images are done, and how many there are in all."""


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, C, H, W] and their classes int64 [N], on the device that works on them."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Data:
    """What a probe is trained and tested on."""

    train: Labelled
    test: Labelled
    pixel_scale: PixelScale
    classes: int

    def split(self, name: Split) -> Labelled:
        return self.train if name == "train" else self.test

    @property
    def device(self) -> torch.device:
        return self.train.images.device

    def at_network_scale(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.pixel_scale.to_network(images.float() / 255)
        return scaled


class Source(ABC):
    """Features of cells, in groups of one width whose heads are trained as one. `widths` says how many features each cell has."""

    def __init__(self, features: FeaturesOf, cells: Sequence[Cell], settings: ProbeSettings, data: Data) -> None:
        self.features, self.settings, self.data = features, settings, data
        first_image = data.at_network_scale(data.train.images[:1])
        self.widths = {cell: rows.shape[1] for cell, rows in features(cells)(first_image, ("widths",)).items()}

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells by the width of their features."""
        return list(grouped(cells, self.widths.__getitem__).values())

    def parts(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """The cells, cut into those whose heads are trained in one go."""
        return [list(cells)]

    @abstractmethod
    def batches(self, cells: Sequence[Cell], index: Tensor, seed: int, epoch: int, size: int) -> Iterator[Batch]:
        """One epoch over the training images that `index` names, in an order of its own."""

    @abstractmethod
    def look(self, cells: Sequence[Cell], split: Split, index: Tensor, seed: int) -> Iterator[Batch]:
        """The images that `index` names, in its order, as they are: neither mirrored nor cropped."""


def crop(images: Tensor, padding: int, black: float, draws: torch.Generator) -> Tensor:
    """Random crops of images [n, C, H, W] padded with black, as torchvision's RandomCrop makes them."""
    n, _, height, width = images.shape
    top, left = torch.randint(0, 2 * padding + 1, (2, n), generator=draws, device=images.device)
    padded = F.pad(images, (padding,) * 4, value=black)
    rows, columns = (begin[:, None] + torch.arange(side, device=images.device) for begin, side in ((top, height), (left, width)))
    numbers = torch.arange(n, device=images.device)[:, None, None]
    return padded[numbers, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


class Fresh(Source):
    """The published way: every image with new noise, flip and crop each time it is seen. All follow from (seed, epoch, step)."""

    def batches(self, cells: Sequence[Cell], index: Tensor, seed: int, epoch: int, size: int) -> Iterator[Batch]:
        settings, train, features = self.settings, self.data.train, self.features(cells)
        for step, chosen in enumerate(torch.split(shuffled(index, seed, epoch), size)):
            name = (seed, epoch, step)
            images = self.data.at_network_scale(train.images[chosen])
            if settings.flip:
                draws = generator(images.device, *name, "flip")
                images = mirrored(images, torch.rand(len(images), generator=draws, device=images.device) < 0.5)
            if settings.crop:
                images = crop(images, settings.crop, self.data.pixel_scale.low, generator(images.device, *name, "crop"))
            yield self._stacked(cells, features(images, name)), train.labels[chosen]

    def look(self, cells: Sequence[Cell], split: Split, index: Tensor, seed: int) -> Iterator[Batch]:
        images, features = self.data.split(split), self.features(cells)
        for step, chosen in enumerate(torch.split(index, self.settings.batch)):
            by_cell = features(self.data.at_network_scale(images.images[chosen]), (seed, split, step * self.settings.batch))
            yield self._stacked(cells, by_cell), images.labels[chosen]

    def _stacked(self, cells: Sequence[Cell], by_cell: Mapping[Cell, Tensor]) -> list[Tensor]:
        return [torch.stack([by_cell[cell] for cell in group]) for group in self.groups(cells)]


class Cached(Source):
    """Features of `cached_draws` looks at every training image and of one at every test image, in half precision on disk.

    The first look is at the images as they are; every second one is mirrored where there are flips, all but the first are cropped where
    there are crops, and each has noise of its own. An epoch uses one look at every image, and images differ in which one.
    """

    def __init__(
        self,
        features: FeaturesOf,
        cells: Sequence[Cell],
        settings: ProbeSettings,
        data: Data,
        folder: Path,
        progress: Progress = lambda done, total: None,
    ) -> None:
        super().__init__(features, cells, settings, data)
        self.folder, self.looks = folder, {"train": settings.cached_draws, "test": 1}
        self._loaded: tuple[tuple[list[Cell], Split], list[Tensor]] | None = None
        total = sum(self.looks[split] * len(data.split(split)) for split in SPLITS)
        self.bytes = 2 * total * sum(self.widths.values())  # that the features take on disk
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if self.bytes > free:
            raise EdmError(
                f"The probe's features take {self.bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free.",
                where=str(folder),
                do_next="Free space, ask for fewer blocks, noise levels or probe.cached_draws, or set probe.features: fresh.",
                permanent=False,
            )
        self._compute(cells, lambda done: progress(done, total))

    def parts(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        rows = self.looks["train"] * len(self.data.train)
        return [
            group[begin : begin + count]
            for group in self.groups(cells)
            for count in [max(PART_BYTES // (2 * rows * self.widths[group[0]]), 1)]
            for begin in range(0, len(group), count)
        ]

    def batches(self, cells: Sequence[Cell], index: Tensor, seed: int, epoch: int, size: int) -> Iterator[Batch]:
        device, total, looks = self.data.device, len(self.data.train), self.looks["train"]
        loaded = self._load(cells, "train")
        first = torch.randint(0, looks, (total,), generator=generator(torch.device("cpu"), seed, "first look")).to(device)
        for chosen in torch.split(shuffled(index, seed, epoch), size):
            rows = (first[chosen] + epoch) % looks * total + chosen
            yield [group[:, rows].float() for group in loaded], self.data.train.labels[chosen]

    def look(self, cells: Sequence[Cell], split: Split, index: Tensor, seed: int) -> Iterator[Batch]:
        loaded, labels = self._load(cells, split), self.data.split(split).labels
        for chosen in torch.split(index, 4 * BLOCK):
            yield [group[:, chosen].float() for group in loaded], labels[chosen]

    def _compute(self, cells: Sequence[Cell], progress: Callable[[int], None]) -> None:
        features, done = self.features(cells), 0
        for split in SPLITS:
            images = self.data.split(split).images
            for draw in range(self.looks[split]):
                for begin in range(0, len(images), BLOCK):
                    seen = self._seen(images[begin : begin + BLOCK], split, draw, begin)
                    for cell, rows in features(seen, (self.settings.seeds[0], split, "look", draw, begin)).items():
                        self._append(cell, split, rows)
                    done += len(seen)
                    progress(done)

    def _seen(self, images: Tensor, split: Split, draw: int, begin: int) -> Tensor:
        seen = self.data.at_network_scale(images)
        if self.settings.flip and draw % 2:
            seen = seen.flip(3)
        if self.settings.crop and draw:
            draws = generator(seen.device, self.settings.seeds[0], split, "crop", draw, begin)
            seen = crop(seen, self.settings.crop, self.data.pixel_scale.low, draws)
        return seen

    def _append(self, cell: Cell, split: Split, rows: Tensor) -> None:
        """Written as a stream: a full disk then raises, where it would kill a process that writes through a memory map."""
        half = rows.half()
        if not bool(half.isfinite().all()):
            raise EdmError(
                f"Features at t {cell.t}, {cell.block} do not fit into half precision.",
                do_next="Set probe.features: fresh, and probe.precision: fp32 if it is not.",
            )
        with self._file(cell, split).open("ab") as file:
            half.cpu().numpy().tofile(file)

    def _file(self, cell: Cell, split: Split) -> Path:
        return self.folder / f"{split}-{cell.t}-{cell.block}.f16"

    def _load(self, cells: Sequence[Cell], split: Split) -> list[Tensor]:
        """Features [cells, looks · images, width] of each group, on the device, kept until others are asked for."""
        wanted = (list(cells), split)
        if self._loaded is None or self._loaded[0] != wanted:
            self._loaded = None
            self._loaded = (wanted, [self._read(group, split) for group in self.groups(cells)])
        return self._loaded[1]

    def _read(self, group: Sequence[Cell], split: Split) -> Tensor:
        rows = self.looks[split] * len(self.data.split(split))
        shape = (len(group), rows, self.widths[group[0]])
        loaded = torch.empty(shape, dtype=torch.float16, device=self.data.device)
        for row, cell in zip(loaded, group, strict=True):
            row.copy_(torch.from_numpy(np.fromfile(self._file(cell, split), dtype=np.float16).reshape(shape[1:])))
        return loaded


def shuffled(index: Tensor, seed: int, epoch: int) -> Tensor:
    """The images that `index`, int64 [n], names, in the order of an epoch."""
    order = torch.randperm(len(index), generator=generator(torch.device("cpu"), seed, epoch, "order"))
    return index[order.to(index.device)]
