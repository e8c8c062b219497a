"""Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2)."""

import torch
from torch import nn


def adamw(
    matrices: list[nn.Parameter],
    others: list[nn.Parameter],
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
) -> torch.optim.Optimizer:
    """torch's, as one fused kernel. Every step multiplies the matrices by 1 - rate · weight_decay, and nothing else."""
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
