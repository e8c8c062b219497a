"""Optimizers: ways to turn gradients into steps, one file each. `OPTIMIZERS` in edm2core/registry.py lists them.

An optimizer of your own is a function of the protocol `Optimizer`, in a file of its own, and a line in that table.
"""

from typing import Protocol

import torch
from torch import nn

from edm2core.diffusion.layers import Table


class Optimizer(Protocol):
    """An optimizer, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], lr: float, /) -> torch.optim.Optimizer:
        """A torch optimizer of all these parameters, whose rate the training sets before every step.

        `matrices` are the weights of learned maps: [outputs, inputs], or kernels [outputs, inputs, k, k], with more than one row and
        column. `others` are gains, biases, tables of embeddings, and what has one row or one column alone. Either list can be empty.

        `lr` is `training.lr`. A group with another rate keeps its ratio to it along the whole schedule. What the optimizer remembers of a
        parameter stands in `state[parameter]` as tensors and numbers: a training that goes on restores them, and nothing else.
        """


def by_kind(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """A module's learned parameters as an optimizer takes them: `matrices` and `others`."""
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, Table | nn.Embedding)}
    kinds: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and 1 < len(parameter) < parameter.numel() and id(parameter) not in tables
            kinds[not is_matrix].append(parameter)
    return kinds
