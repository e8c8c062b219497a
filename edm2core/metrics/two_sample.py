"""A leave-one-out nearest-neighbour test of whether samples can be told from training images, for small sets."""

import numpy as np
import torch
from torch import Tensor

from edm2core.metrics.compared import Compared, Value
from edm2core.metrics.neighbours import nearest

SEED = 0  # of the choice of images from the larger set
Z = 1.959963984540054  # standard errors on either side that hold 95 %


def nearest_neighbour_test(compared: Compared) -> dict[str, Value]:
    """The three accuracies, as metrics."""
    return two_sample(*compared.tensors())


def two_sample(samples: Tensor, real: Tensor) -> dict[str, Value]:
    """How often a 1-NN classifier tells samples [n, d] from real images [m, d], each image left out in turn: of all, real ones, samples.

    Of equal distributions it is right half of the time. Above that it tells them apart; well below it, samples lie nearer to single real
    images than these lie to each other, as copies do. Of the larger set as many images are taken as the smaller has.
    Lopez-Paz & Oquab, arXiv 1610.06545, section 2, with the classifier of Xu et al., arXiv 1806.07755, section 2.
    """
    size = min(len(samples), len(real))
    mixed = torch.cat([_chosen(real, size), _chosen(samples, size)])
    fake = torch.arange(2 * size, device=mixed.device) >= size
    neighbour = nearest(mixed, mixed, 1, among_themselves=True).indices[:, 0]
    right = fake[neighbour] == fake
    mutual = neighbour[neighbour] == torch.arange(2 * size, device=mixed.device)
    of_each = {"nn_test": torch.ones_like(fake), "nn_test_real": ~fake, "nn_test_fake": fake}
    return {name: _share(right[of], mutual[of]) for name, of in of_each.items()}


def _chosen(features: Tensor, size: int) -> Tensor:
    """So many rows at random, always the same."""
    if len(features) == size:
        return features
    rows = np.sort(np.random.default_rng(SEED).permutation(len(features))[:size])
    return features[torch.from_numpy(rows).to(features.device)]


def _share(right: Tensor, mutual: Tensor) -> Value:
    """A share with its standard error and its 95 % interval.

    Two images that are each other's nearest are right or wrong together. Where both sets are equally distributed all other outcomes are
    uncorrelated in pairs, so the variance is a binomial's times 1 + the share of such images.
    """
    share = float(right.double().mean())
    error = float(np.sqrt(share * (1 - share) / len(right) * (1 + float(mutual.double().mean()))))
    return Value(share, error, interval=(max(share - Z * error, 0.0), min(share + Z * error, 1.0)))
