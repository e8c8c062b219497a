"""Reads checkpoints of FutureXiang/edm2, under this project's names."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.errors import InputError
from edm2core.snapshots.files import DenoiserSettings
from edm2core.snapshots.torch_file import load_torch

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")  # parts of names that torch's wrappers add
AVERAGED, ONLINE = "ema_model.", "online_model."  # prefixes of names in ema-pytorch
MOST_FAULTS = 12  # of one kind are listed; the file of another network has hundreds
_WRITTEN = "as its training script writes it: a dictionary of MODEL, EMA and opt."

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
    head = "final.2." if getattr(denoiser.network.settings, "norm", "") == "group" else "final.0."
    names = {}
    for ours in denoiser.state_dict():
        theirs = ours.replace("network.head.conv.", f"nn_model.{head}")
        for pattern, replacement in _FX_RENAMES:
            theirs = re.sub(pattern, replacement, theirs)
        names[ours] = theirs
    return names


@dataclass(frozen=True)
class FxCheckpoint:
    """A `model_<epoch>.pth` of FutureXiang/edm2 under this project's names. A part that the file lacks is None."""

    ema: dict[str, Tensor]  # averaged weights, as a state dict of the denoiser
    updates: int | None  # of the EMA, one at each training step
    weights: dict[str, Tensor] | None  # weights without averaging, as a state dict of the denoiser
    adam: dict[str, dict[str, Tensor]] | None  # Adam's moments by parameter


def read_fx(path: Path, recipe: DenoiserSettings) -> FxCheckpoint:
    """The whole content of a `model_<epoch>.pth` of FutureXiang/edm2, on the CPU. Nothing in it is executed.

    Names may have the prefixes of DistributedDataParallel, FSDP, torch.compile or a trainer. Raises InputError, which lists the tensors of
    the weights and of the optimiser that are missing, unknown, of another shape, or not finite.
    """
    sections = _sections(path)
    with torch.device("meta"):
        file = _Comparison(Denoiser(build_network(recipe.network), recipe.diffusion))
    file.only("top level", sections, ("MODEL", "EMA", "opt"))
    averages = file.plain("EMA", sections["EMA"])
    groups = {prefix: {n.removeprefix(prefix): t for n, t in averages.items() if n.startswith(prefix)} for prefix in (AVERAGED, ONLINE)}
    rest = {n: t for n, t in averages.items() if not n.startswith((AVERAGED, ONLINE))}
    if not groups[AVERAGED]:  # the averaged network was saved without its wrapper
        groups[AVERAGED] = {n: t for n, t in rest.items() if n in file.ours}
        rest = {n: t for n, t in rest.items() if n not in file.ours}
    file.only("EMA", rest, ("initted", "step"))
    groups = {prefix: file.unprefixed(tensors) for prefix, tensors in groups.items()}
    if "step" in rest:
        file.fits("EMA", "step", rest["step"], torch.Size())
    ema = file.weights("EMA ema_model", groups[AVERAGED])
    weights, order = None, dict[str, Tensor]()  # Adam's state is numbered in the file's own order of tensors
    model = file.unprefixed(file.plain("MODEL", sections.get("MODEL", {})))
    for part, tensors in (("EMA online_model", groups[ONLINE]), ("MODEL", model)):
        if tensors:
            weights, order = file.weights(part, tensors), dict(tensors)
    adam = file.adam(sections["opt"], order) if order and sections.get("opt", {}).get("state") else None
    file.must_fit(str(path))
    return FxCheckpoint(ema, int(rest["step"]) if "step" in rest else None, weights, adam)


def _sections(path: Path) -> dict[str, Any]:
    """The checkpoint's dictionaries. Raises InputError for another kind of file, and says which kind if it is known."""
    no_checkpoint, do_next = "This is not a checkpoint of FutureXiang/edm2", f"Give a model_<epoch>.pth {_WRITTEN}"
    try:
        sections = load_torch(path)
    except InputError as error:
        raise InputError(f"{no_checkpoint}: {error.what}", where=error.where, do_next=f"{error.do_next} {do_next}") from error
    if not isinstance(sections, Mapping):
        raise InputError(f"{no_checkpoint}: it holds a {type(sections).__name__}.", where=str(path), do_next=do_next)
    if "EMA" not in sections:
        held = ", ".join(str(name) for name in list(sections)[:3])
        alone = all(isinstance(value, Tensor) for value in sections.values())
        what = "weights alone, without an EMA" if alone and sections else "no EMA"
        raise InputError(f"{no_checkpoint}: it has {what}; it begins with {held or 'nothing'}.", where=str(path), do_next=do_next)
    parts = [sections, *(sections[name] for name in ("EMA", "MODEL", "opt") if name in sections)]
    if not all(isinstance(part, Mapping) and all(isinstance(name, str) for name in part) for part in parts):
        raise InputError(f"{no_checkpoint}: its parts are no dictionaries.", where=str(path), do_next=do_next)
    return dict(sections)


class _Comparison:
    """Compares a file's tensors with a network's. It collects all faults, each with the parts of the file that have it."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.ours = {theirs: ours for ours, theirs in fx_names(denoiser).items()}
        self.shapes = {theirs: denoiser.state_dict()[ours].shape for theirs, ours in self.ours.items()}
        self.trained = {theirs for theirs, ours in self.ours.items() if ours in dict(denoiser.named_parameters())}
        self.faults: dict[str, dict[str, list[str]]] = {}  # kind of fault → the fault in words → the parts of the file that have it
        self.recognised = False  # whether any name in any part is one of the network's

    def fault(self, part: str, words: str, kind: str = "") -> None:
        """Note a fault in a part of the file. Of each kind only the first are listed."""
        self.faults.setdefault(kind, {}).setdefault(f"{kind}: {words}" if kind else words, []).append(part)

    def must_fit(self, where: str) -> None:
        """Raise InputError if there is any fault."""
        if self.faults:
            lines: list[str] = []
            for faults in self.faults.values():
                listed = [f"{words} ({', '.join(parts)})" for words, parts in faults.items()]
                more = len(listed) - MOST_FAULTS
                lines += listed[:MOST_FAULTS] + ([f"… and {more} more like these"] if more > 0 else [])
            known = "The checkpoint does not fit the recipe's network", "Name the recipe that the checkpoint was trained with."
            foreign = "None of the checkpoint's names is one of this network's", f"Give a model_<epoch>.pth {_WRITTEN}"
            what, do_next = known if self.recognised else foreign
            raise InputError("\n    ".join([f"{what}:", *lines]), where=where, do_next=do_next)

    def plain(self, part: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """The tensors by their names without the words of wrappers, such as DDP's `module` and torch.compile's `_orig_mod`."""
        plain: dict[str, Any] = {}
        for name, tensor in tensors.items():
            bare = ".".join(word for word in name.split(".") if word not in WRAPPERS)
            if bare in plain:
                self.fault(part, bare, "twice, but for its wrapper")
            plain[bare] = tensor
        return plain

    def unprefixed(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """The tensors without a prefix that all names have before the network's names, such as a trainer's `model.`."""
        known = f".{next(iter(self.ours))}"
        prefix = next((name.removesuffix(known) + "." for name in tensors if name.endswith(known)), "")
        return {name[len(prefix) :]: t for name, t in tensors.items()} if all(name.startswith(prefix) for name in tensors) else tensors

    def only(self, part: str, names: Iterable[str], known: Collection[str], kind: str = "not of such a file") -> None:
        """Note every name that is not known as a fault."""
        for name in names:
            if name not in known:
                self.fault(part, name, kind)

    def fits(self, part: str, name: str, tensor: Any, shape: torch.Size) -> bool:
        """Whether it is a tensor of that shape with finite values; if not, that is a fault."""
        if tensor is None:
            self.fault(part, name, "missing")
        elif not isinstance(tensor, Tensor):
            self.fault(part, f"{name} is no tensor")
        elif tensor.shape != shape:
            self.fault(part, f"{name} has shape {list(tensor.shape)}, the recipe's network {list(shape)}")
        elif not tensor.isfinite().all():
            self.fault(part, f"{name} has values that are not finite")
        else:
            return True
        return False

    def weights(self, part: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
        """The network's weights and buffers that fit, under our names."""
        self.recognised |= not tensors or any(name in self.ours for name in tensors)
        self.only(part, tensors, self.ours, "not of this network")
        fitting = [name for name in self.ours if self.fits(part, name, tensors.get(name), self.shapes[name])]
        return {self.ours[name]: tensors[name].float() for name in fitting}

    def adam(self, opt: Mapping[str, Any], order: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Adam's moments by our names. The optimiser numbers all tensors in the file's order; those that are not trained have no state."""
        try:
            positions = [position for group in opt["param_groups"] for position in group["params"]]
            states = {position: dict(state) for position, state in opt["state"].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            positions, states = [], {}
        if positions != list(range(len(order))):
            self.fault("opt", f"its parameters are not numbered 0 to {len(order) - 1}, as the weights are")
            return {}
        self.only("opt", [f"state {position}" for position in states], {f"state {position}" for position in positions})
        moments: dict[str, dict[str, Tensor]] = {}
        for position, (name, weight) in enumerate(order.items()):
            state, part = states.get(position, {}), f"opt, state {position}"
            if name in self.trained:
                shapes = {"step": torch.Size(), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}
                self.only(part, state, shapes)
                fitting = [moment for moment, shape in shapes.items() if self.fits(part, f"{moment} of {name}", state.get(moment), shape)]
                moments[self.ours[name]] = {moment: state[moment].float() for moment in fitting}
            elif state and name in self.ours:
                self.fault(part, f"{name} has a state, though it is not trained")
        return moments
