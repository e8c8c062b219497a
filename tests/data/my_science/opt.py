"""Plain gradient descent with momentum for maps, without it for everything else."""

import torch


def momentum(matrices, others, lr, *, beta: float = 0.9):
    groups = [{"params": matrices, "momentum": beta}, {"params": others, "momentum": 0.0}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=lr, fused=True)
