"""Accuracies, confusion matrices and nearest neighbours of predictions; and stratified shares of images."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.probe.cells import Cell, generator

TEMPERATURE = 0.07  # of the votes of nearest neighbours (Wu et al. 2018, arXiv 1805.01978; DINO's)


def hits(predictions: Tensor, labels: Tensor) -> Tensor:
    """Whether predictions, [N], or the k likeliest, [N, k], hold the label [N]; bool [N]."""
    return predictions == labels if predictions.ndim == 1 else (predictions == labels[:, None]).any(dim=1)


def percent(hit: Tensor) -> float:
    """The percentage of hits among bool [N]."""
    return round(float(hit.double().mean()) * 100, 4)


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Percent of predictions, [N] or the several likeliest [N, k], among which the label [N] is."""
    return percent(hits(predictions, labels))


def standard_error(seeds: Sequence[Tensor]) -> float:
    """The standard error, in percent, of the accuracy over draws of the test images; each seed's hits are bool [N].

    For one seed it is √(p(1 - p)/n). Of several seeds' mean it is less, since their differences on the same image average out.
    """
    of_image = torch.stack(list(seeds)).double()
    mean, _ = mean_and_deviation([percent(hit) for hit in seeds])
    within = float(of_image.var(dim=0, correction=0).mean()) * 100**2
    return round(math.sqrt(max(mean * (100 - mean) - within, 0.0) / of_image.shape[1]), 4)


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Mean and standard deviation over the probe's seeds; a single seed has no deviation."""
    return round(fmean(values), 4), round(stdev(values), 4) if len(values) > 1 else None


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts int64 [classes, classes]: rows are true classes, columns predicted ones."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def choose(accuracies: Mapping[Cell, float]) -> Cell:
    """The cell with the best accuracy; of equals the first."""
    return max(accuracies, key=lambda cell: accuracies[cell])


def stratified_split(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the images to train on and of those to validate on: `share` of each class, at least one of two, picked by the seed."""
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


def nearest(bank: Tensor, labels: Tensor, queries: Tensor, neighbours: int, classes: int) -> Tensor:
    """The classes [M] of `queries` [M, width] by votes of their nearest in `bank` [N, width], which has labels [N].

    Nearness is the cosine of the angle between features; a neighbour's vote weighs exp(cosine / TEMPERATURE).
    """
    bank = F.normalize(bank.float(), dim=1)
    classes_of = []
    for part in torch.split(F.normalize(queries.float(), dim=1), 1024):
        closest = (part @ bank.T).topk(min(neighbours, len(bank)), dim=1)
        votes = torch.zeros(len(part), classes, device=bank.device)
        votes.scatter_add_(1, labels[closest.indices], (closest.values / TEMPERATURE).exp())
        classes_of.append(votes.argmax(dim=1))
    return torch.cat(classes_of)
