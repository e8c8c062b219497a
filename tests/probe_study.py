"""Small images, and heads trained on their features."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from edm2core.config.settings import ProbeSettings
from edm2core.data.scale import PixelScale
from edm2core.probe.cells import PIXELS, Cell, Features, pixel_features
from edm2core.probe.features import Cached, Data, Fresh, Labelled, Source
from edm2core.probe.heads import Heads

CLASSES = 3


def blobs(n: int, seed: int) -> Labelled:
    """Images whose class is the brightest row, with noise: a linear classifier can learn it."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    images = torch.randint(0, 100, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(n), 0, labels] += 60
    return Labelled(images, labels)


def settings_of(**changes: Any) -> ProbeSettings:
    return ProbeSettings(**{"epochs": 4, "batch": 32, "lr": 0.01, "flip": False, **changes})


def only_pixels(cells: Sequence[Cell]) -> Features:
    return pixel_features


class Study:
    """A source of features of small images, and heads trained on it."""

    def __init__(
        self,
        train: Labelled,
        features: Callable[[Sequence[Cell]], Features] = only_pixels,
        cells: Sequence[Cell] = (PIXELS,),
        folder: Path | None = None,
        **changes: Any,
    ) -> None:
        self.settings, self.cells = settings_of(**changes), list(cells)
        self.data = Data(train, blobs(90, 1), PixelScale(), CLASSES)
        self.source: Source = (
            Cached(features, self.cells, self.settings, self.data, folder)
            if folder
            else Fresh(features, self.cells, self.settings, self.data)
        )

    def heads(self, seed: int = 0) -> Heads:
        return Heads(self.source.widths, self.cells, CLASSES, self.settings, self.data.device, seed=seed)

    def epoch(self, heads: Heads) -> dict[Cell, float]:
        index = torch.arange(len(self.data.train))
        return heads.train_epoch(self.source.batches(heads.cells, index, heads.seed, heads.epochs, self.settings.batch))

    def trained(self, seed: int = 0) -> Heads:
        heads = self.heads(seed)
        while heads.epochs < heads.last:
            self.epoch(heads)
        return heads

    def predictions(self, heads: Heads, count: int = 1) -> dict[Cell, torch.Tensor]:
        return heads.best(self.source.look(heads.cells, "test", torch.arange(len(self.data.test)), heads.seed), count)
