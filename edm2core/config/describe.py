"""Describes settings and their values in words, for people who compare recipes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edm2core.config.fields import OWN, is_keyed, section_in
from edm2core.config.settings import Recipe


@dataclass(frozen=True)
class Difference:
    """A setting in which two recipes differ: `name` as in YAML, its description, and its two values in words."""

    name: str
    description: str
    one: str
    other: str


def differences(one: Recipe, other: Recipe) -> list[Difference]:
    """What differs between two recipes apart from their names, in the order of the settings."""
    absent = Flat(None, True)  # a setting of a section that the other recipe does not have
    a, b = flattened(one), flattened(other)
    names = [name for name in a | b if name != "name" and a.get(name, absent).value != b.get(name, absent).value]
    words = [(name, *(in_words(name, each.get(name, absent).value) for each in (a, b))) for name in names]
    return [Difference(name, DESCRIPTIONS.get(name, name), *values) for name, *values in words]


def in_words(name: str, value: Any) -> str:
    """A setting's value in words: its entry in `MEANINGS`, or the value as a person writes it."""
    meaning = MEANINGS.get(name, {}).get(value) if not isinstance(value, list | dict) else None
    if meaning is not None:
        return meaning
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(in_words("", each) for each in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{inner} {in_words('', each)}" for inner, each in value.items())
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def fields_of(section: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting of a section by its dotted name, as in YAML; a section within stands before its own settings."""
    fields = dict[str, FieldInfo]()
    for name, field in section.model_fields.items():
        fields[prefix + name] = field
        if inner := section_in(field.annotation):
            fields |= fields_of(inner, f"{prefix}{name}.")
    return fields


class Flat(NamedTuple):
    """A setting's value as JSON holds it, and whether it decides what comes out."""

    value: Any
    keyed: bool


def flattened(settings: BaseModel) -> dict[str, Flat]:
    """Every setting by its dotted name, as a file writes it: those of own code stand beside their section's others.

    A section that is absent is None under its own name.
    """
    values, flat = settings.model_dump(mode="json"), dict[str, Flat]()
    for name, field in type(settings).model_fields.items():
        section = getattr(settings, name)
        if isinstance(section, BaseModel):
            flat |= {f"{name}.{inner}": Flat(value, keyed and is_keyed(field)) for inner, (value, keyed) in flattened(section).items()}
        else:
            flat |= {each: Flat(value, is_keyed(field)) for each, value in (values[OWN] if name == OWN else {name: values[name]}).items()}
    return flat


MEANINGS: dict[str, dict[Any, str]] = {
    "data.standardize": {False: "in [-1, 1]", True: "standardised: mean 0, standard deviation σ_data"},
    "network.attention_head_channels": {None: "one, with all channels", 32: "of 32 channels", 64: "of 64 channels"},
    "network.attention_norm": {"group": "group norm before it", "pixel": "cosine: queries, keys and values pixel-normalised"},
    "network.weights": {
        "plain": "as stored",
        "normalized": "normalised in the forward",
        "forced": "normalised in the forward, and in place before a training step",
    },
    "network.init": {
        None: "as PyTorch's (normalised ones as N(0, 1))",
        "he": "He-uniform, all of them",
        "adm": "as PyTorch's, at zero where a branch or the network ends",
    },
    "network.biases": {False: "none, but a constant-one input channel", True: "biases of all layers"},
    "network.noise_features": {"fourier": "random Fourier", "positional": "positional"},
    "network.embedding_width": {"fourfold": "4 x the first level's channels", "widest": "the widest level's channels"},
    "network.conditioning": {"scale": "scales each channel", "scale_and_shift": "scales and shifts each channel"},
    "network.norm": {
        "group": "group norm with mean, ε 1e-5",
        "group_affine": "group norm with mean, ε 1e-5, learned scale and shift",
        "group_rms": "group norm by the root mean square alone, ε 1e-4",
        "pixel": "pixel norm in the encoder's main branch alone, whose blocks are the paper's from F on",
    },
    "network.pixel_epsilon": {"inside": "x / √(mean(x²) + 1e-8)", "outside": "x / (1e-4 + √mean(x²))"},
    "network.middle": {"encoder": "of the encoder's kind", "decoder": "of the decoder's kind"},
    "network.magnitude_preserving": {
        False: "as usual",
        True: "magnitude-preserving SiLU, sum, concatenation and Fourier features; learned gains",
    },
    "diffusion.log_variance_features": {0: "none", 128: "from 128 Fourier features", 256: "from 256 Fourier features"},
    "sample.schedule": {"karras": "EDM's", "uniform_logsnr": "even in ln σ"},
    "training.t_ref_epochs": {None: "none, it stays"},
    "training.lr_changes": {
        "every_epoch": "epoch by epoch",
        "every_step": "step by step, with the images seen",
        "cosine": "along half a cosine",
        "constant": "only in the warm-up",
    },
    "training.clip_norm": {None: "none"},
    "training.loss_reduction": {"mean": "averaged", "sum": "summed, so that fp16 needs no loss scaling"},
    "training.ema_beta": {None: "no such average"},
}

DESCRIPTIONS = {name: field.title for name, field in fields_of(Recipe).items() if field.title}
"""The few words by which tables call a recipe's settings; each stands in the setting's Field."""
