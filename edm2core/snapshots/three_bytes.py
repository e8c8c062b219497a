"""Tensors in three bytes a number: half precision, and what it leaves in 256ths of its step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

REST = "/rest"  # ends the name of what half precision leaves
SMALLEST = -13  # exponent, as frexp has it, below which the steps of half precision become no smaller


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each float32 tensor as two: float16 under its name and int8 under its name and REST, with a relative error of 2^-20.

    A tensor with numbers beyond half precision's stays as it is.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        half = tensor.half()
        if not bool(half.isfinite().all()):
            found[name] = tensor.contiguous()
            continue
        rest = ((tensor.double() - half.double()) / _unit(half)).round().clamp(-128, 127)
        found |= {name: half.contiguous(), name + REST: rest.to(torch.int8).contiguous()}
    return found


def unpacked(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A tensor that `packed` gave, in float64; one that was stored in half precision alone as that."""
    whole, rest = tensors[name].double(), tensors.get(name + REST)
    return whole if rest is None else whole + rest.double() * _unit(tensors[name])


def _unit(half: Tensor) -> Tensor:
    """A 256th of the step between numbers of half precision, 2^(e - 11) with e the exponent; float64."""
    exponents = torch.where(half == 0, SMALLEST, torch.frexp(half.float()).exponent.clamp(min=SMALLEST))
    return torch.ldexp(torch.ones_like(half, dtype=torch.float64), exponents - 11 - 8)
