"""Muon: steps along the orthogonalised momentum of each matrix (Jordan et al. 2024, kellerjordan.github.io/posts/muon).

A step is scaled by 0.2 √max(rows, columns), which gives it the size of Adam's (arXiv 2502.16982, section 2.2). So one learning rate serves
both, and Adam's can be kept.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def muon(
    matrices: list[nn.Parameter],
    others: list[nn.Parameter],
    lr: float,
    *,
    momentum: float = 0.95,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """torch's Muon for the matrices, which alone decay, and its Adam for the others. Kernels are matrices [outputs, inputs · k · k]."""
    return MuonAndAdam(matrices, others, lr, momentum, betas, weight_decay)


class MuonAndAdam(torch.optim.Optimizer):
    """torch's Muon and its Adam as one optimizer, whose `state` and `param_groups` cover both."""

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        lr: float,
        momentum: float,
        betas: tuple[float, float],
        weight_decay: float,
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
