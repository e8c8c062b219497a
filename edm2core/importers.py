"""Checkpoints of other implementations, under this project's names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from edm2core.config.settings import Recipe
from edm2core.diffusion import Denoiser
from edm2core.errors import InputError
from edm2core.nets import build_network

FX_PREFIXES = {"MODEL": "module.", "EMA": "ema_model."}

# Ours → FutureXiang/edm2's, applied in order to a name.
_FX_RENAMES = (
    (r"^network\.", "nn_model."),
    (r"^uncertainty\.", "reweight_mlp."),
    (r"\.stem\.", ".image_proj."),
    (r"\.encoder\.", ".down."),
    (r"\.middle\.0\.", ".middle1."),
    (r"\.middle\.1\.", ".middle2."),
    (r"\.decoder\.out_(\d+)\.", lambda match: f".up.{int(match[1]) - 1}."),
    (r"\.attention\.qkv\.", ".attn.projection."),
    (r"\.attention\.output\.", ".attn.output."),
    (r"\.embed\.", ".res.linear."),
    (r"\.conv1\.", ".res.conv1."),
    (r"\.conv2\.", ".res.conv2.1."),
    (r"\.skip\.", ".res.shortcut."),
    (r"\.(middle\d|down\.\d+|up\.\d+)\.gain$", r".\1.res.gain.g"),
    (r"\.head\.gain$", ".final.1.g"),
)


def fx_names(denoiser: Denoiser) -> dict[str, str]:
    """{name in the denoiser's state dict: name in FutureXiang/edm2's}, without MODEL's or EMA's prefix."""
    head = "final.2." if denoiser.network.settings.norm == "group" else "final.0."
    names = {}
    for ours in denoiser.state_dict():
        theirs = ours.replace("network.head.conv.", f"nn_model.{head}")
        for pattern, replacement in _FX_RENAMES:
            theirs = re.sub(pattern, replacement, theirs)
        names[ours] = theirs
    return names


def load_fx_tensors(denoiser: Denoiser, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill the denoiser from tensors under FutureXiang/edm2's names (no prefix), all of them and nothing else.

    Raises InputError with every missing, extra and mis-shaped name.
    """
    state, names = denoiser.state_dict(), fx_names(denoiser)
    faults = [f"missing: {theirs}" for theirs in names.values() if theirs not in tensors]
    faults += [f"not of this network: {theirs}" for theirs in tensors if theirs not in names.values()]
    faults += [
        f"{theirs} has shape {list(tensors[theirs].shape)}, the recipe's network {list(state[ours].shape)}"
        for ours, theirs in names.items()
        if theirs in tensors and tensors[theirs].shape != state[ours].shape
    ]
    if faults:
        raise InputError(
            "The checkpoint does not fit the recipe's network:\n    " + "\n    ".join(faults),
            where=where,
            do_next="Name the recipe that the checkpoint was trained with.",
        )
    denoiser.load_state_dict({ours: tensors[theirs] for ours, theirs in names.items()})


def load_fx(path: str | Path, recipe: Recipe, weights: Literal["EMA", "MODEL"] = "EMA") -> Denoiser:
    """The denoiser in a `model_<epoch>.pth` of FutureXiang/edm2, in eval mode on the CPU; its images are in [-1, 1].

    Nothing in the file is executed. Raises InputError where the file cannot be read or does not fit the recipe's network.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        stored = checkpoint[weights]
        prefix = FX_PREFIXES[weights]
        tensors = {name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)}
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"This is not a checkpoint of FutureXiang/edm2: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            where=str(path),
            do_next="Give a model_<epoch>.pth as its training script writes it: a dictionary of MODEL, EMA and opt.",
        ) from error
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    load_fx_tensors(denoiser, tensors, str(path))
    return denoiser.eval()
