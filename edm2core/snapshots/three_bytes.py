"""Tensors in three bytes a number: float16 and one byte for its rounding error, in 256ths of the step between float16 numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor

REST = "/rest"  # ends the name of the tensor of rounding errors
SMALLEST = -13  # exponent, as frexp counts it, below which the steps between float16 numbers stay the same


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each float32 tensor as two: float16 under its name, and int8 under its name and REST. The relative error is 2^-20.

    A tensor with numbers that float16 cannot hold stays as it is.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        half = tensor.half()
        if not bool(half.isfinite().all()):
            stored[name] = tensor.contiguous()
            continue
        rest = ((tensor.double() - half.double()) / _unit(half)).round().clamp(-128, 127)
        stored |= {name: half.contiguous(), name + REST: rest.to(torch.int8).contiguous()}
    return stored


def unpacked(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor from those that `packed` returned, in float64. One without rounding errors, of an earlier version, is float16 alone."""
    whole, rest = tensors[name].double(), tensors.get(name + REST)
    return whole if rest is None else whole + rest.double() * _unit(tensors[name])


def _unit(half: Tensor) -> Tensor:
    """A 256th of the step between float16 numbers of this size: 2^(e - 11) / 256 with e the exponent, in float64."""
    exponents = torch.where(half == 0, SMALLEST, torch.frexp(half.float()).exponent.clamp(min=SMALLEST))
    return torch.ldexp(torch.ones_like(half, dtype=torch.float64), exponents - 11 - 8)
