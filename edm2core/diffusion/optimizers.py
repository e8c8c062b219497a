"""Optimizers: ways to turn gradients into steps. `OPTIMIZERS` in edm2core/registry.py lists them.

An optimizer of your own is a function of the protocol `Optimizer`, and a line in that table.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edm2core.diffusion.layers import Table

Parameters = list[nn.Parameter]
Betas = tuple[float, float]
BETAS: Betas = (0.9, 0.999)


class Optimizer(Protocol):
    """An optimizer, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, matrices: Parameters, others: Parameters, lr: float, /) -> torch.optim.Optimizer:
        """A torch optimizer of all these parameters, whose rate the training sets before every step.

        `matrices` are the weights of learned maps: [outputs, inputs], or kernels [outputs, inputs, k, k], with more than one row and
        column. `others` are gains, biases, tables of embeddings, and what has one row or one column alone. Either list can be empty.

        `lr` is `training.lr`. A group with another rate keeps its ratio to it along the whole schedule. What the optimizer remembers of a
        parameter stands in `state[parameter]` as tensors and numbers: a training that goes on restores them, and nothing else.
        """


def by_kind(module: nn.Module) -> tuple[Parameters, Parameters]:
    """A module's learned parameters as an optimizer takes them: `matrices` and `others`."""
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, Table | nn.Embedding)}
    kinds: tuple[Parameters, Parameters] = [], []
    for parameter in module.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and 1 < len(parameter) < parameter.numel() and id(parameter) not in tables
            kinds[not is_matrix].append(parameter)
    return kinds


def adam(matrices: Parameters, others: Parameters, lr: float, *, betas: Betas = BETAS) -> torch.optim.Optimizer:
    """torch's Adam (arXiv 1412.6980, algorithm 1), as one fused kernel, which skips a step by itself where gradients are not finite."""
    return torch.optim.Adam([*matrices, *others], lr=lr, betas=betas, fused=True)


def adamw(
    matrices: Parameters, others: Parameters, lr: float, *, betas: Betas = BETAS, weight_decay: float = 0.01
) -> torch.optim.Optimizer:
    """torch's AdamW (arXiv 1711.05101, algorithm 2), as one fused kernel.

    Every step multiplies the matrices by 1 - rate · weight_decay, and nothing else.
    """
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


class Muon(torch.optim.Optimizer):
    """torch's Muon for the matrices, which alone decay, and its Adam for the others. Kernels are matrices [outputs, inputs · k · k].

    Its steps go along the orthogonalised momentum of each matrix (Jordan et al. 2024, kellerjordan.github.io/posts/muon), scaled by
    0.2 √max(rows, columns), which gives them the size of Adam's (arXiv 2502.16982, section 2.2): one learning rate serves both.
    """

    def __init__(
        self,
        matrices: Parameters,
        others: Parameters,
        lr: float,
        *,
        momentum: float = 0.95,
        betas: Betas = BETAS,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__([{"params": params} for params in (matrices, others) if params], {"lr": lr})
        self._inner: list[torch.optim.Optimizer] = []
        if matrices:  # torch's takes two-dimensional parameters alone
            views = [_as_matrix(parameter.detach(), parameter) for parameter in matrices]
            self._inner.append(torch.optim.Muon(views, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._inner.append(torch.optim.Adam(others, lr, betas, fused=True))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step. `closure` is not used."""
        for group, inner in zip(self.param_groups, self._inner, strict=True):
            (own,) = inner.param_groups
            own["lr"] = group["lr"]
            for parameter, view in zip(group["params"], own["params"], strict=True):
                inner.state[view] = self.state[parameter]  # the same dictionary, so that what is restored here is used there
                if view is not parameter:
                    view.grad = None if parameter.grad is None else _as_matrix(parameter.grad, parameter)
            inner.step()


def _as_matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """[outputs, inputs · k · k], its columns in the order in which the parameter's numbers lie: a view if the tensor's lie alike."""
    ordered = tensor if parameter.is_contiguous() else tensor.permute(0, 2, 3, 1)  # the training's kernels are channels_last
    return ordered.reshape(len(tensor), -1)
