"""Folding: brings a built network into a form that computes the same with fewer operations. The network works without it too.

The modules follow the paper: each forward normalises weights (equation 47), divides SiLUs by 0.596 (81) and scales both sides of sums (88).
In a folded network each map applies its weight as it is. The weight was normalised before. It was also multiplied by 1/0.596 for the SiLU
before the map and, where the map ends a branch, by the branch's share of the sum. The main path is scaled while it is added. Only rounding
differs.

Measured on one CPU thread, digits, batch 64: how many times as long the unfolded network takes.
eager:     a step C 1.02, E 1.19, G 1.18; a forward C 1.00, E 1.10, G 1.27; a step of four micro-batches E 1.27, G 1.28
compiled:  a step C 1.00, E 1.04 (0.93 to 1.20); G has not been measured
Not measured on a GPU: neither the constants in the weights, nor the sums in place, nor the hand-derived gradient of `FoldedForTraining`.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.layers import (
    BALANCE,
    EVEN,
    MAGNITUDE_PRESERVING,
    NORM_EPSILON,
    PLAIN,
    SILU_MAGNITUDE,
    Operations,
    Weighted,
    normalize,
)
from edm2core.diffusion.unet import UNet


def prepare_for_inference(denoiser: Denoiser, device: torch.device) -> Denoiser:
    """The frozen denoiser itself, folded, channels_last, on the device. Its state dict no longer holds the stored weights."""
    fold_(denoiser)
    return denoiser.to(device).to(memory_format=torch.channels_last)


@torch.no_grad()
def fold_(denoiser: Denoiser) -> None:
    """Replace every stored weight by the one that the folded network applies. Folding twice changes nothing."""
    for layer, factor in _factors(denoiser).items():
        layer.weight.copy_((normalize(layer.weight) if layer.normalized else layer.weight) * factor)
    _apply_as_stored(denoiser)


class FoldedForTraining:
    """A folded copy of a denoiser, `module`, for training; parameters and buffers that need no folding are the original's own.

    `refresh` makes the copy's weights from the stored ones, and `pull_back` brings their gradients to the stored ones. In between,
    forwards, backwards and the reduction over processes are those of a network of plain weights, for any number of micro-batches.
    """

    def __init__(self, stored: Denoiser) -> None:
        factors = _factors(stored)
        own = {id(layer.weight) for layer in factors}
        shared = [tensor for tensor in (*stored.parameters(), *stored.buffers()) if id(tensor) not in own]
        self.module = copy.deepcopy(stored, {id(tensor): tensor for tensor in shared})
        self._stored, self._applied = ([layer.weight for layer in _factors(each)] for each in (stored, self.module))
        self._rows = [len(weight) for weight in self._stored]
        self._fan_in = self._by_row([weight[0].numel() for weight in self._stored])
        self._factor = self._by_row(list(factors.values()))
        self._normalized, self._forced = (any(getattr(layer, name) for layer in factors) for name in ("normalized", "forced"))
        _apply_as_stored(self.module)
        # For each row w of a stored weight: applied = scale · w. With g the gradient of the applied row, that of w is
        # scale · (g - along · (w·g) w).
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
        """A number for each row of the weights, from one number for each layer."""
        device = self._stored[0].device if self._stored else None
        rows = torch.tensor(self._rows, dtype=torch.int64, device=device)
        return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(rows)

    def _parts(self, numbers: Tensor) -> list[Tensor]:
        """Each layer's part [rows, 1] of a vector that has a number for every row."""
        return list(torch.split(numbers[:, None], self._rows))


def _factors(denoiser: Denoiser) -> dict[Weighted, float]:
    """The maps whose weight changes by folding, in the order of the network's modules, and the constant that multiplies each weight.

    The constant includes 1/√fan_in where weights are normalised.
    """
    factors = {layer: layer.std if layer.normalized else 1.0 for layer in denoiser.modules() if isinstance(layer, Weighted)}
    if (network := _with_constants(denoiser)) is not None:
        silu, share, embedding = 1 / SILU_MAGNITUDE, _share(BALANCE), network.embedding
        if embedding.linear2 is not None:
            factors[embedding.linear2] *= silu
        if embedding.label is not None:
            factors[embedding.linear2 or embedding.linear1] *= _share(EVEN)
            factors[embedding.label] *= _share(EVEN)
        for block in network.blocks:
            factors[block.embed] *= silu
            factors[block.conv1] *= silu
            factors[block.conv2] *= silu * share
            if block.attention is not None:
                factors[block.attention.output] *= share
    return {layer: factor for layer, factor in factors.items() if layer.normalized or factor != 1}


def _with_constants(denoiser: Denoiser) -> UNet | None:
    """The network if it has constants to fold. Biases would need other factors than their weights, and no config has both."""
    network = denoiser.network
    return network if isinstance(network, UNet) and network.ops == MAGNITUDE_PRESERVING and not network.settings.biases else None


def _apply_as_stored(denoiser: Denoiser) -> None:
    """Make every layer apply its weight as it is, without normalising it, and leave out the constants that are in the weights now."""
    ops, magnitude_preserving = denoiser.network.ops, _with_constants(denoiser)
    if magnitude_preserving is not None:
        ops = Operations(F.silu, _mp_sum_in_place, ops.cat, ops.fourier)
    elif ops == PLAIN:
        ops = ops._replace(sum=_sum_in_place)
    for module in denoiser.modules():
        if isinstance(module, Weighted):
            module.normalized = module.forced = False
        elif isinstance(getattr(module, "ops", None), Operations):
            module.ops = ops  # type: ignore[assignment]
    if magnitude_preserving is not None:
        magnitude_preserving.embedding.ops = ops._replace(sum=_sum_in_place)  # the weights of both of its maps already hold their shares


def _share(t: float) -> float:
    """The factor of b in the magnitude-preserving sum of a and b."""
    return t / math.hypot(1 - t, t)


def _mp_sum_in_place(main: Tensor, branch: Tensor, t: float) -> Tensor:
    """mp_sum, written over the branch. The branch is a map's fresh output, and is already multiplied by its share."""
    return branch.add_(main, alpha=(1 - t) / math.hypot(1 - t, t))


def _sum_in_place(main: Tensor, branch: Tensor, t: float) -> Tensor:
    return branch.add_(main)


def _matrix(weight: Tensor) -> Tensor:
    """[outputs, fan_in], a view in the order in which the numbers lie, of a weight that is contiguous or channels_last."""
    return weight.view(len(weight), -1) if weight.is_contiguous() else weight.permute(0, 2, 3, 1).view(len(weight), -1)
