"""The weights that a network applies, made from the stored ones in one pass over all of them instead of in every forward."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from edm2core.diffusion.layers import NORM_EPSILON, Weighted

Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def fold_(module: nn.Module) -> None:
    """Replace every stored weight by the one that is applied. For a frozen network: its state dict then no longer holds the stored ones."""
    for layer in _to_fold(module):
        layer.weight.copy_(layer.effective_weight())
        layer.mark_folded()


class Applied(Generic[Module]):
    """A copy of a module, `module`, whose learned maps apply their weights as they are; what needs no folding it shares with the original.

    `refresh` makes the copy's weights from the stored ones, `pull_back` brings their gradients to the stored ones. What lies between,
    forwards, backwards and the reduction over processes, is that of a network of plain weights, for however many micro-batches.
    """

    def __init__(self, stored: Module) -> None:
        layers = _to_fold(stored)
        own = {id(layer.weight) for layer in layers}
        shared = [tensor for tensor in (*stored.parameters(), *stored.buffers()) if id(tensor) not in own]
        self.module = copy.deepcopy(stored, {id(tensor): tensor for tensor in shared})
        copies = _to_fold(self.module)
        self._stored, self._applied = [layer.weight for layer in layers], [layer.weight for layer in copies]
        self._rows = [len(weight) for weight in self._stored]
        self._fan_in = self._by_row([weight[0].numel() for weight in self._stored])
        self._factor = self._by_row([layer.factor for layer in layers])
        self._normalized, self._forced = (any(getattr(layer, name) for layer in layers) for name in ("normalized", "forced"))
        for layer in copies:
            layer.mark_folded()
        # of every row w: applied = scale · w; the gradient of w is scale · (g - along · (w·g) w), with g that of the applied row
        self._scale, self._along = self._factor, torch.zeros_like(self._factor)

    @torch.no_grad()
    def refresh(self) -> None:
        """Before a step's first forward: normalise forced weights in place (equation 66) and make the copy's from the stored ones (47)."""
        stored = [_matrix(weight) for weight in self._stored]
        if self._normalized:
            rms = torch.empty_like(self._scale)
            for weight, row in zip(stored, self._parts(rms), strict=True):
                torch.linalg.vector_norm(weight, dim=1, keepdim=True, out=row)
            rms /= self._fan_in.sqrt()
            inverse = 1 / (NORM_EPSILON + rms)
            if self._forced:
                torch._foreach_mul_(stored, self._parts(inverse))
                rms *= inverse
                inverse = 1 / (NORM_EPSILON + rms)
            self._scale = self._factor * inverse
            self._along = inverse / (self._fan_in * rms).clamp_min(1e-30)
        for weight, applied, row in zip(stored, self._applied, self._parts(self._scale), strict=True):
            torch.mul(weight, row, out=_matrix(applied))

    @torch.no_grad()
    def pull_back(self) -> None:
        """After a step's last backward: give the stored weights their gradients, in place of the applied ones'."""
        gradients = []
        for stored, applied in zip(self._stored, self._applied, strict=True):
            assert applied.grad is not None  # noqa: S101
            stored.grad = applied.grad  # autograd and DDP lay a gradient out as its weight
            gradients.append(_matrix(stored.grad))
        if self._normalized:
            weights, dots = [_matrix(weight) for weight in self._stored], torch.empty_like(self._scale)
            for weight, gradient, row in zip(weights, gradients, self._parts(dots), strict=True):
                torch.linalg.vecdot(weight, gradient, out=row[:, 0])
            dots *= self._along
            torch._foreach_addcmul_(gradients, weights, self._parts(dots), value=-1)
        if gradients:
            torch._foreach_mul_(gradients, self._parts(self._scale))

    def _by_row(self, values: list[float]) -> Tensor:
        """A number of each layer, for each of its rows."""
        device = self._stored[0].device if self._stored else None
        rows = torch.tensor(self._rows, dtype=torch.int64, device=device)
        return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(rows)

    def _parts(self, numbers: Tensor) -> list[Tensor]:
        """Each layer's part [rows, 1] of a vector that has a number for every row."""
        return list(torch.split(numbers[:, None], self._rows))


def _to_fold(module: nn.Module) -> list[Weighted]:
    return [layer for layer in module.modules() if isinstance(layer, Weighted) and (layer.normalized or layer.gain != 1)]


def _matrix(weight: Tensor) -> Tensor:
    """[outputs, fan_in], a view in the order in which the numbers lie, of a weight that is contiguous or channels_last."""
    return weight.view(len(weight), -1) if weight.is_contiguous() else weight.permute(0, 2, 3, 1).view(len(weight), -1)
