"""Linear classifiers on frozen features (DDAE: Xiang et al., arXiv 2303.09769, section 4): many cells (t, block) at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.affine import Affine
from edm2core.config.settings import Precision, ProbeSettings
from edm2core.devices import autocast
from edm2core.diffusion import Denoiser
from edm2core.errors import EdmError, InputError
from edm2core.keyed_random import seed_of
from edm2core.sample import probe_sigma


class Cell(NamedTuple):
    """Where features are taken: noise level t (0: no noise) and decoder block."""

    t: int
    block: str

    @property
    def sigma(self) -> float:
        return probe_sigma(self.t) if self.t else 0.0


PIXELS = Cell(0, "pixels")
Features = Callable[[Tensor, tuple[int | str, ...]], dict[Cell, Tensor]]
"""Images at the network's scale [n, C, H, W], and the name of the noise they get, to float32 [n, width] of every cell."""


def cells_of(settings: ProbeSettings, block_names: Sequence[str]) -> list[Cell]:
    """The cells that the settings name, in the order of t and of the blocks; raises InputError for a block or t that does not exist."""
    blocks = list(block_names) if settings.blocks == ("all",) else list(settings.blocks)
    if unknown := [block for block in blocks if block not in block_names]:
        raise InputError(
            f"The network has no block {', '.join(unknown)}.",
            where="probe.blocks",
            do_next=f"Choose among {', '.join(block_names)}, or all.",
        )
    for t in settings.t:
        probe_sigma(t)
    return list(dict.fromkeys(Cell(t, block) for t in settings.t for block in blocks))


def denoiser_features(denoiser: Denoiser, cells: Sequence[Cell], precision: Precision = "fp32") -> Features:
    """Pooled block outputs of a denoiser in eval mode on noised images; one forward per noise level, up to the last wanted block.

    A cell's noise does not depend on which other cells are looked at.
    """
    blocks: dict[int, list[str]] = {}
    for t, block in cells:
        blocks.setdefault(t, []).append(block)

    @torch.no_grad()
    def features(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
        found: dict[Cell, Tensor] = {}
        for t, wanted in blocks.items():
            sigma = probe_sigma(t)
            noise = torch.randn(images.shape, generator=_generator(images.device, *name, "noise", t), device=images.device)
            with autocast(images.device.type, precision):
                pooled = denoiser.features(images + sigma * noise, sigma, wanted)
            found |= {Cell(t, block): pooled[block].float() for block in wanted}
        return found

    return features


def pixel_features(images: Tensor, name: tuple[int | str, ...]) -> dict[Cell, Tensor]:
    """The images themselves, without noise: what a linear classifier makes of no features at all."""
    return {PIXELS: images.flatten(1)}


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train and to validate on: of each class `share` (at least one image of two), picked by the seed."""
    kept, held = [], []
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten().cpu()
        members = members[torch.randperm(len(members), generator=_generator(torch.device("cpu"), seed, "validation", label))]
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held.append(members[:count])
        kept.append(members[count:])
    return torch.cat(kept).sort().values.to(labels.device), torch.cat(held).sort().values.to(labels.device)


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [N, C, H, W] and their classes int64 [N], on the device that works on them."""

    images: Tensor
    labels: Tensor

    def __getitem__(self, index: Tensor) -> Labelled:
        return Labelled(self.images[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


class Probe:
    """One linear layer a cell, all trained on the same batches: Adam, cosine to 0 by epoch, random flips, fresh noise every time.

    Cells share no parameter, so the sum of their losses trains each as if alone. Everything random follows from (seed, epoch, step).
    """

    def __init__(self, features: Features, affine: Affine, settings: ProbeSettings, train: Labelled, classes: int) -> None:
        self.features, self.affine, self.settings, self.train = features, affine, settings, train
        self.epochs = 0  # completed
        widths = {cell: x.shape[1] for cell, x in features(self._at_network_scale(train.images[:1]), ("widths",)).items()}
        self.cells = list(widths)
        self.heads = {cell: self._head(cell, width, classes) for cell, width in widths.items()}
        self._parameters = [parameter for head in self.heads.values() for parameter in head]
        self.optimizer = torch.optim.Adam(self._parameters, lr=settings.lr)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.settings.batch)

    def train_epoch(self, on_step: Callable[[int], None] | None = None) -> dict[Cell, float]:
        """One pass over the training images; `on_step` is told each finished step. The mean loss of every cell.

        Raises EdmError where a loss is not finite, naming the cells.
        """
        settings, device = self.settings, self.train.images.device
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr * (1 + math.cos(math.pi * self.epochs / settings.epochs)) / 2
        order = torch.randperm(len(self.train), generator=_generator(torch.device("cpu"), settings.seed, self.epochs, "order")).to(device)
        sums = torch.zeros(len(self.cells), device=device)
        for step in range(self.steps_per_epoch):
            index = order[step * settings.batch : (step + 1) * settings.batch]
            name = (settings.seed, self.epochs, step)
            batch = self.train[index]
            images = self._at_network_scale(batch.images)
            if settings.flip:
                flipped = torch.rand(len(images), generator=_generator(device, *name, "flip"), device=device) < 0.5
                images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            features = self.features(images, name)
            losses = torch.stack([F.cross_entropy(F.linear(features[cell], *self.heads[cell]), batch.labels) for cell in self.cells])
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.sum())
            self.optimizer.step()
            sums += losses.detach() * len(index)
            if on_step:
                on_step(step + 1)
        self.epochs += 1
        means = dict(zip(self.cells, (sums / len(self.train)).tolist(), strict=True))
        if wrong := [f"t {cell.t}, {cell.block}" for cell, loss in means.items() if not math.isfinite(loss)]:
            raise EdmError(
                f"The probe's loss is not finite at {'; '.join(wrong)}.", do_next="Set probe.precision: fp32, or lower probe.lr."
            )
        return means

    @torch.no_grad()
    def predict(self, images: Tensor, purpose: str, on_batch: Callable[[int], None] | None = None) -> dict[Cell, Tensor]:
        """The class [N] that every cell gives images uint8 [N, C, H, W].

        `purpose` names their noise, `on_batch` is told how many are done.
        """
        found: dict[Cell, list[Tensor]] = {cell: [] for cell in self.cells}
        for begin in range(0, len(images), self.settings.batch):
            batch = images[begin : begin + self.settings.batch]
            features = self.features(self._at_network_scale(batch), (self.settings.seed, purpose, begin))
            for cell, predictions in found.items():
                predictions.append(F.linear(features[cell], *self.heads[cell]).argmax(dim=1))
            if on_batch:
                on_batch(begin + len(batch))
        return {cell: torch.cat(predictions) for cell, predictions in found.items()}

    def state(self) -> dict[str, Tensor]:
        """What continues the probe after its last completed epoch with the same bits."""
        tensors = {"epochs": torch.tensor(self.epochs)}
        for number, parameter in enumerate(self._parameters):
            tensors[f"{number}/value"] = parameter.detach()
            tensors |= {f"{number}/{moment}": value for moment, value in self.optimizer.state[parameter].items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        moments: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self._parameters):
            parameter.data.copy_(tensors[f"{number}/value"])
            moments[number] = {moment: tensors[f"{number}/{moment}"] for moment in ("step", "exp_avg", "exp_avg_sq")}
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.epochs = int(tensors["epochs"])

    def _at_network_scale(self, images: Tensor) -> Tensor:
        scaled: Tensor = self.affine.to_network(images.float() / 255)
        return scaled

    def _head(self, cell: Cell, width: int, classes: int) -> tuple[Tensor, Tensor]:
        """Weight [classes, width] and bias [classes], drawn as torch.nn.Linear does, by the cell's own name."""
        generator, bound = _generator(torch.device("cpu"), self.settings.seed, "head", *cell), width**-0.5
        drawn = [torch.empty(shape).uniform_(-bound, bound, generator=generator) for shape in ((classes, width), (classes,))]
        weight, bias = (x.to(self.train.images.device).requires_grad_() for x in drawn)
        return weight, bias


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Percent of predictions [N] that are the labels [N]."""
    return round(float((predictions == labels).double().mean()) * 100, 4)


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts int64 [classes, classes]: rows are true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def choose(validation: dict[Cell, float]) -> Cell:
    """The cell with the best accuracy on validation images; of equals the first."""
    return max(validation, key=lambda cell: validation[cell])


def _generator(device: torch.device, *name: int | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_of("probe", *name))
