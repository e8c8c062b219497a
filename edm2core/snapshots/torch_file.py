"""Reads files of torch.save that users bring, without executing anything in them and in no more memory than their size."""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edm2core.data.headers import TORCH_FILE, announces, check_torch
from edm2core.errors import InputError

_DAMAGED = (OSError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError, MemoryError)


def load_torch(path: Path) -> Any:
    """The content of a file, on the CPU.

    Raises InputError for a file that is not torch's, whose kind it names if it is known, for a damaged one, and for one that claims to hold
    more than it does.
    """
    check_torch(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGED, pickle.UnpicklingError) as error:
        raise InputError(f"It cannot be read as {TORCH_FILE}: {_reason(error)}.", where=str(path), do_next="Get the file again.") from error
    for tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            what = "It holds a tensor that is sparse, quantised or without data."
            raise InputError(what, where=str(path), do_next="Save plain tensors.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise announces(path, f"a tensor of {tensor.numel():,} numbers, of which it stores fewer")
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dictionaries and lists. None of these is walked twice."""
    waiting, seen = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            parts: Iterable[Any] = value.values() if isinstance(value, Mapping) else value
            waiting.extend(parts)


def _reason(error: Exception) -> str:
    """The first line of an error. In the others PyTorch advises to load the file in a way that executes code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it holds more than weights, and nothing of it was executed"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
