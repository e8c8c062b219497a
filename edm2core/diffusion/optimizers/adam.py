"""Adam (arXiv 1412.6980, algorithm 1)."""

import torch
from torch import nn


def adam(
    matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, *, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """torch's, as one fused kernel, which skips a step by itself where gradients are not finite."""
    return torch.optim.Adam([*matrices, *others], lr=lr, betas=betas, fused=True)
