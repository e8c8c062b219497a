"""What is read off predictions, and how images are divided: accuracies, confusion, nearest neighbours, stratified shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.probe.cells import Cell, generator

TEMPERATURE = 0.07  # of the votes of nearest neighbours (Wu et al. 2018, arXiv 1805.01978; DINO's)


def hits(predictions: Tensor, labels: Tensor) -> Tensor:
    """Whether the label [N] is the predicted one, [N], or among the several likeliest, [N, k]; bool [N]."""
    return predictions == labels if predictions.ndim == 1 else (predictions == labels[:, None]).any(dim=1)


def percent(hit: Tensor) -> float:
    """The share of hits, bool [N]."""
    return round(float(hit.double().mean()) * 100, 4)


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Percent of predictions, [N] or the several likeliest [N, k], among which the label [N] is."""
    return percent(hits(predictions, labels))


def standard_error(seeds: Sequence[Tensor]) -> float:
    """In percent, of the mean accuracy over the probe's seeds, on other test images; each seed's hits are bool [N].

    √(p(1 - p)/n) for one seed. Over several seeds, the differences between seeds on the same image average out.
    """
    of_image = torch.stack(list(seeds)).double()
    mean, _ = mean_and_deviation([percent(hit) for hit in seeds])
    within = float(of_image.var(dim=0, correction=0).mean()) * 100**2
    return round(math.sqrt(max(mean * (100 - mean) - within, 0.0) / of_image.shape[1]), 4)


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Over the probe's seeds; no deviation of one."""
    return round(fmean(values), 4), round(stdev(values), 4) if len(values) > 1 else None


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts int64 [classes, classes]: rows are true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def choose(accuracies: Mapping[Cell, float]) -> Cell:
    """The cell with the best accuracy; of equals the first."""
    return max(accuracies, key=lambda cell: accuracies[cell])


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train and to validate on: of each class `share` (at least one image of two), picked by the seed."""
    return _by_class(labels, share, seed, "validation", leave=1)


def few_of_each(labels: Tensor, share: float, seed: int) -> Tensor:
    """Indices of `share` of the images of each class, at least one, picked by the seed."""
    return _by_class(labels, share, seed, "few", leave=0)[1]


def _by_class(labels: Tensor, share: float, seed: int, purpose: str, leave: int) -> tuple[Tensor, Tensor]:
    others, picked = [], []
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten().cpu()
        members = members[torch.randperm(len(members), generator=generator(torch.device("cpu"), seed, purpose, label))]
        count = min(max(round(share * len(members)), 1), len(members) - leave)
        picked.append(members[:count])
        others.append(members[count:])
    return torch.cat(others).sort().values.to(labels.device), torch.cat(picked).sort().values.to(labels.device)


def nearest(bank: Tensor, labels: Tensor, looked: Tensor, neighbours: int, classes: int) -> Tensor:
    """The class [M] that the nearest of `bank` [N, width], with labels [N], give `looked` [M, width]: cosine, votes exp(cos/0.07)."""
    bank = F.normalize(bank.float(), dim=1)
    classes_of = []
    for part in torch.split(F.normalize(looked.float(), dim=1), 1024):
        closest = (part @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(part), classes, device=bank.device)
        votes.scatter_add_(1, labels[closest.indices], (closest.values / TEMPERATURE).exp())
        classes_of.append(votes.argmax(dim=1))
    return torch.cat(classes_of)
