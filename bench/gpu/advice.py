"""What to try next, from what was measured: the plainest reading of each number, in the order in which it pays."""

from collections.abc import Mapping
from typing import Any

GOAL = 0.35  # MFU of training and sampling


def advice(measured: Mapping[str, Any]) -> list[str]:
    """Sentences for the rows measured so far, by name; the most pressing first."""
    facts = {name: entry["result"].get("facts", {}) for name, entry in measured.items() if "result" in entry}
    failed = [f"{name} failed: mend it before any number counts." for name, entry in measured.items() if "failed" in entry]
    return [*failed, *_waits(facts), *_profiles(facts), *_compiling(facts), *_choices(facts), *_goals(facts)]


def _waits(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name}: a step waits for the device {each['waits']:.0f} times. Find where by torch.cuda.set_sync_debug_mode('error')."
        for name, each in facts.items()
        if each.get("waits")
    ]


def _profiles(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    words = []
    for name, each in facts.items():
        if "idle" not in each:
            continue
        if each["idle"] > 0.1:
            words.append(f"{name}: the device is idle for {each['idle']:.0%} of a step. Try CUDA graphs of the step (gpu-train-E-graphs).")
        if each["copies"] > 0.08:
            words.append(f"{name}: copies take {each['copies']:.0%}. Look for changes of layout and for casts under autocast.")
        memory_bound = each["elementwise"] + each["norms and sums"]
        if memory_bound > 0.3:
            remedy = "fuse norm, modulation and SiLU" if "compiled" in name else "compile the network"
            words.append(f"{name}: elementwise work and norms take {memory_bound:.0%}. To make them fewer passes, {remedy}.")
        if each["convolution"] > 0.55:
            words.append(f"{name}: convolutions take {each['convolution']:.0%}. Try other kernels for them (gpu-train-E-max-autotune).")
    return words


def _compiling(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    words = []
    for name, each in facts.items():
        eager = facts.get(name.removesuffix("-compiled"))
        if name.endswith("-compiled") and eager and "images_per_s" in each and "images_per_s" in eager:
            gain = each["images_per_s"] / eager["images_per_s"]
            words.append(f"{name}: compiled it is {gain:.2f} times as fast. Set GAIN in edm2core/diffusion/compiling.py by it.")
    return words


def _choices(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name}: it gains {100 * (each['gain'] - 1):+.1f} %. A choice that gains less than 2 % on every network may go."
        for name, each in facts.items()
        if "gain" in each and each["gain"] < 1.02
    ]


def _goals(facts: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [
        f"{name}: MFU is {each['mfu']:.2f} of {GOAL}; {GOAL / each['mfu']:.1f} times the speed is wanted."
        for name, each in facts.items()
        if 0 < each.get("mfu", 0.0) < GOAL
    ]
