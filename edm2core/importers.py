"""Checkpoints of other implementations, under this project's names."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from edm2core.config import Recipe, load_recipe
from edm2core.diffusion import Denoiser
from edm2core.errors import InputError
from edm2core.nets import build_network
from edm2core.snapshot import DenoiserSettings

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam, for each parameter

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


@dataclass(frozen=True)
class FxCheckpoint:
    """A `model_<epoch>.pth` of FutureXiang/edm2 under this project's names; what the file has not is None."""

    ema: dict[str, Tensor]  # as the denoiser's state dict
    updates: int | None  # of the EMA: one at every step
    weights: dict[str, Tensor] | None  # as they were trained, like ema
    adam: dict[str, dict[str, Tensor]] | None  # parameter → its moments


def load_fx_tensors(denoiser: Denoiser, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill the denoiser from tensors under FutureXiang/edm2's names (no prefix), all of them and nothing else.

    Raises InputError with every missing, extra and mis-shaped name.
    """
    comparison = _Comparison(denoiser)
    found = comparison.weights("", "", tensors)
    comparison.must_fit(where)
    denoiser.load_state_dict(found)


def load_fx(path: str | Path, recipe: Recipe | str, weights: Literal["EMA", "MODEL"] = "EMA") -> Denoiser:
    """The denoiser in a `model_<epoch>.pth` of FutureXiang/edm2, in eval mode on the CPU; its images are in [-1, 1].

    `recipe` is that of its training: its name, the path of its file, or the recipe itself. Nothing in the file is executed.
    Raises InputError where the file cannot be read or does not fit the recipe's network.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    checkpoint = read_fx(path, recipe)
    found = checkpoint.ema if weights == "EMA" else checkpoint.weights
    if found is None:
        raise InputError("The checkpoint has only averaged weights.", where=str(path), do_next="Ask for weights='EMA'.")
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    denoiser.load_state_dict(found)
    return denoiser.eval()


def read_fx(path: str | Path, recipe: DenoiserSettings) -> FxCheckpoint:
    """All that a `model_<epoch>.pth` of FutureXiang/edm2 holds, on the CPU; nothing in it is executed.

    Raises InputError with every name that is missing, extra, mis-shaped or not finite, in weights and optimiser alike.
    """
    sections = _sections(path)
    with torch.device("meta"):
        file = _Comparison(Denoiser(build_network(recipe.network), recipe.diffusion))
    file.only("top level", sections, ("MODEL", "EMA", "opt"))
    averages = sections["EMA"]
    groups = {prefix: {n: t for n, t in averages.items() if n.startswith(prefix)} for prefix in ("ema_model.", "online_model.")}
    file.only("EMA", [n for n in averages if not n.startswith(tuple(groups))], ("initted", "step"))
    if "step" in averages:
        file.fits("EMA", "step", averages["step"], torch.Size())
    ema = file.weights("EMA ema_model", "ema_model.", groups["ema_model."])
    weights, order = None, dict[str, Tensor]()  # the file's own order, by which Adam's state is numbered
    online = ("EMA online_model", "online_model.", groups["online_model."])
    for place, prefix, tensors in (online, ("MODEL", "module.", sections.get("MODEL", {}))):
        if tensors:
            weights = file.weights(place, prefix, tensors)
            order = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    adam = file.adam(sections["opt"], order) if order and sections.get("opt", {}).get("state") else None
    file.must_fit(str(path))
    return FxCheckpoint(ema, int(averages["step"]) if "step" in averages else None, weights, adam)


def _sections(path: str | Path) -> dict[str, Any]:
    """The checkpoint's dictionaries. Raises InputError for a file that is none of its kind."""
    try:
        sections = torch.load(path, map_location="cpu", weights_only=True)
        parts = [sections, sections["EMA"], *(sections[name] for name in ("MODEL", "opt") if name in sections)]
        if not all(isinstance(part, Mapping) and all(isinstance(name, str) for name in part) for part in parts):
            raise TypeError("its parts are no dictionaries")
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(
            f"This is not a checkpoint of FutureXiang/edm2: {_reason(error)}.",
            where=str(path),
            do_next="Give a model_<epoch>.pth as its training script writes it: a dictionary of MODEL, EMA and opt.",
        ) from error
    return dict(sections)


def _reason(error: Exception) -> str:
    """The error's first sentence: what PyTorch goes on to say is advice to load the file in a way that runs code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of weights alone"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _Comparison:
    """Compares a file with a network name by name, and keeps every fault until the end, with the parts of the file that have it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.ours = {theirs: ours for ours, theirs in fx_names(denoiser).items()}
        self.shapes = {theirs: denoiser.state_dict()[ours].shape for theirs, ours in self.ours.items()}
        self.trained = {theirs for theirs, ours in self.ours.items() if ours in dict(denoiser.named_parameters())}
        self.faults: dict[str, list[str]] = {}

    def fault(self, place: str, words: str) -> None:
        self.faults.setdefault(words, []).append(place)

    def must_fit(self, where: str) -> None:
        """Raise InputError if there is any fault."""
        if self.faults:
            lines = [f"{words} ({', '.join(places)})" if places[0] else words for words, places in self.faults.items()]
            raise InputError(
                "The checkpoint does not fit the recipe's network:\n    " + "\n    ".join(lines),
                where=where,
                do_next="Name the recipe that the checkpoint was trained with.",
            )

    def only(self, place: str, names: Iterable[str], known: Collection[str]) -> None:
        """Nothing but known names."""
        for name in names:
            if name not in known:
                self.fault(place, f"not of such a file: {name}")

    def fits(self, place: str, name: str, tensor: Any, shape: torch.Size) -> bool:
        """Whether it is a tensor of that shape with finite values."""
        if tensor is None:
            self.fault(place, f"missing: {name}")
        elif not isinstance(tensor, Tensor):
            self.fault(place, f"{name} is no tensor")
        elif tensor.shape != shape:
            self.fault(place, f"{name} has shape {list(tensor.shape)}, the recipe's network {list(shape)}")
        elif not tensor.isfinite().all():
            self.fault(place, f"{name} has values that are not finite")
        else:
            return True
        return False

    def weights(self, place: str, prefix: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
        """The network's weights and buffers under our names, those that fit."""
        found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        self.only(place, tensors, {prefix + name for name in found})
        for name in found:
            if name not in self.ours:
                self.fault(place, f"not of this network: {name}")
        fitting = [name for name in self.ours if self.fits(place, name, found.get(name), self.shapes[name])]
        return {self.ours[name]: found[name].float() for name in fitting}

    def adam(self, opt: Mapping[str, Any], order: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Adam's moments by our names. It numbers all parameters as they stand in the file; the fixed ones have no state."""
        try:
            positions = [position for group in opt["param_groups"] for position in group["params"]]
            states = {position: dict(state) for position, state in opt["state"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            positions, states = [], {}
        if positions != list(range(len(order))):
            self.fault("opt", f"its parameters are not numbered 0 to {len(order) - 1}, as the weights are")
            return {}
        self.only("opt", [f"state {position}" for position in states], {f"state {position}" for position in positions})
        found: dict[str, dict[str, Tensor]] = {}
        for position, (name, weight) in enumerate(order.items()):
            state, place = states.get(position, {}), f"opt, state {position}"
            if name in self.trained:
                self.only(place, state, MOMENTS)
                shapes = {"step": torch.Size(), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
                fitting = [moment for moment in MOMENTS if self.fits(place, f"{moment} of {name}", state.get(moment), shapes[moment])]
                found[self.ours[name]] = {moment: state[moment].float() for moment in fitting}
            elif state and name in self.ours:
                self.fault(place, f"{name} has a state, though it is not trained")
        return found
