"""The rows of a session on a GPU, the most important first; each says about how many seconds it takes on an H100."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.compare import Measurements, Side, Spread, in_turn, ratio, share
from bench.evaluation import extracting
from bench.gpu.speedrun import recipe_of, speedrun
from bench.network import flops
from bench.rows import Options, Result, Row
from edm2core.config import load_recipe
from edm2core.diffusion.compiling import COST_S
from edm2core.registry import FORMATS
from pipelines.estimate import GPUS

BATCH, STEPS, IMAGES = 512, 20, 50_000
SAMPLED, NOISE_LEVELS = 400, 18
NETS = {"E": "cifar10/E", "C": "cifar10/C", "G": "cifar10/G", "tiny-E": "tinyimagenet/E"}
DEVICE_TESTS = ("tests/edm2core/test_keyed_random.py", "tests/edm2core/diffusion")
REPOSITORY = Path(__file__).parents[2]


def trained(name: str, options: Options) -> dict[str, Any]:
    """What the sides of a training row are called with."""
    if options.rehearsal:
        return {"recipe": f"digits/{name[-1]}", "batch": 4, "steps": 2, "images": 8, "device": options.device}
    return {"recipe": NETS[name], "batch": BATCH, "steps": STEPS, "images": IMAGES, "device": options.device}


def drawn(name: str, options: Options) -> dict[str, Any]:
    """What the sides of a sampling row are called with."""
    if options.rehearsal:
        return {"recipe": f"digits/{name[-1]}", "count": 2, "noise_levels": 2, "device": options.device}
    return {"recipe": NETS[name], "count": SAMPLED, "noise_levels": NOISE_LEVELS, "device": options.device}


def limit(options: Options) -> Side:
    """The device's fastest matrix product."""
    return Side("bench.limit:bf16", {"device": options.device, **({"side": 64} if options.rehearsal else {})})


def mfu(flops_a_second: float, name: str) -> float | None:
    """The share of the peak that the GPU's data sheet states for bf16; None where the GPU is not known here."""
    plain = name.lower().replace(" ", "")
    return next((flops_a_second / gpu.half for known, gpu in GPUS.items() if known in plain), None)


def utilisation(flops_a_second: float, name: str) -> str:
    """MFU in words, or operations a second."""
    reached = mfu(flops_a_second, name)
    return f"{flops_a_second / 1e12:.3g} TFLOP/s" if reached is None else f"MFU {reached:.2f}"


def _end_to_end(measured: Measurements, images: int, work: float, options: Options) -> Result:
    """The product against the plain path; `work` is both's operations on so many images."""
    speed = {side: Spread.of([images / run["seconds"] for run in measured[side]]) for side in ("plain", "product")}
    name = "the CPU" if options.rehearsal else torch.cuda.get_device_name()
    rate, last = work * speed["product"].median / images, measured["product"][-1]
    words = [f"{ratio(measured, 'plain', 'product').text()}×", utilisation(rate, name)]
    if "waits" in last:
        words.append(f"{last['waits']:.0f} host synchronisations a step")
    words.append(f"peak {last['peak_bytes'] / 2**30:.1f} GiB")
    return Result(
        ", ".join(words),
        f"{speed['plain'].text(0)} images/s",
        f"{speed['product'].text(0)} images/s",
        f"{share(measured, 'plain', work).text()} → {share(measured, 'product', work).text()}",
        facts={"images_per_s": speed["product"].median, "mfu": mfu(rate, name) or 0.0, "waits": last.get("waits", 0.0)},
    )


def _against_plain(verb: str, given: dict[str, Any], compiled: bool, images: int, work: float, options: Options) -> Result:
    """The product's way of `verb`, train or draw, against the plain one; `work` is both's operations on so many images."""
    sides = {
        "plain": Side(f"bench.gpu.sides:plain_{verb}", given),
        "product": Side(f"bench.gpu.sides:product_{verb}", {**given, "compiled": compiled}),
        "limit": limit(options),
    }
    return _end_to_end(in_turn(sides, options.repeats, warmup=1), images, work, options)


def _train(name: str, seconds: float, compiled: bool = False) -> Row:
    def measure(options: Options) -> Result:
        given = trained(name, options)
        images = given["steps"] * given["batch"]
        return _against_plain("train", given, compiled, images, images * flops(given["recipe"], backward=True), options)

    way = "compiled" if compiled else "eager"
    target = "≥ 3×, MFU ≥ 0.35, 0 host synchronisations"
    what = f"training on a GPU, {NETS[name]}, batch {BATCH}, {way}, end to end"
    return Row(f"gpu-train-{name}{'-compiled' * compiled}", what, target, measure, "cuda", seconds)


def _draw(name: str, seconds: float, compiled: bool = False) -> Row:
    def measure(options: Options) -> Result:
        given = drawn(name, options)
        work = given["count"] * (2 * given["noise_levels"] - 1) * flops(given["recipe"])
        return _against_plain("draw", given, compiled, given["count"], work, options)

    way, evaluations = "as a CUDA graph" if compiled else "eager", 2 * NOISE_LEVELS - 1
    what = f"sampling on a GPU, {NETS[name]}, {SAMPLED} images, {evaluations} evaluations, bf16, {way}, end to end"
    return Row(f"gpu-sample-{name}{'-compiled' * compiled}", what, "≥ 3×, MFU ≥ 0.35", measure, "cuda", seconds)


def _two_ways(name: str, compiled: bool, before: dict[str, Any], after: dict[str, Any], fact: str, options: Options) -> Result:
    """A training step of the product with the arguments `after` against one with `before`; the ratio is called `fact`."""
    given = {**trained(name, options), "compiled": compiled}
    sides = {way: Side("bench.gpu.sides:product_train", {**given, **more}) for way, more in (("before", before), ("after", after))}
    measured = in_turn(sides, options.repeats, warmup=1)
    steps = {way: Spread.of([1e3 * run["seconds"] / given["steps"] for run in runs]) for way, runs in measured.items()}
    gain = ratio(measured, "before", "after")
    return Result(f"{gain.text(3)}×", f"{steps['before'].text(1)} ms", f"{steps['after'].text(1)} ms", facts={fact: gain.median})


def _without(name: str, without: str, what: str, seconds: float, compiled: bool = False) -> Row:
    """The product's training step without one of its choices against the step with it."""
    fact = "masks" if without == "keys" else "gain"  # masks by key are there for the results' sake, whatever they cost

    def measure(options: Options) -> Result:
        return _two_ways(name, compiled, {"without": without}, {}, fact, options)

    way = "compiled" if compiled else "eager"
    described = f"without: {what}; a training step on a GPU of {NETS[name]}, batch {BATCH}, {way}"
    return Row(f"gpu-choice-{without}-{name}{'-compiled' * compiled}", described, "its gain", measure, "cuda", seconds)


def _mode(mode: str, name: str, what: str, seconds: float) -> Row:
    """Training compiled by another of torch.compile's modes against training compiled as it is."""

    def measure(options: Options) -> Result:
        return _two_ways("E", True, {}, {"mode": mode}, "speed", options)

    return Row(f"gpu-train-E-{name}", f"{what}; plain: compiled as it is; {NETS['E']}, batch {BATCH}", "its gain", measure, "cuda", seconds)


def _profile(name: str, seconds: float, compiled: bool = False) -> Row:
    def measure(options: Options) -> Result:
        given = {key: value for key, value in trained(name, options).items() if key != "steps"}
        side = Side("bench.gpu.profile:step_by_kind", {**given, "compiled": compiled})
        (facts,) = in_turn({"step": side}, 1)["step"]
        kinds = {
            key: part
            for key, part in facts.items()
            if key not in ("seconds", "cpu_seconds", "peak_bytes") and not key.startswith("kernel ")
        }
        words = ", ".join(f"{kind} {part:.0%}" for kind, part in sorted(kinds.items(), key=lambda item: -item[1]) if part >= 0.005)
        return Result(words, product=f"{1e3 * facts['seconds']:.1f} ms a step", facts=facts)

    way = "compiled" if compiled else "eager"
    what = f"where a training step's time goes on a GPU, {NETS[name]}, batch {BATCH}, {way}"
    return Row(f"gpu-profile-{name}{'-compiled' * compiled}", what, "convolutions and matrix products", measure, "cuda", seconds)


def _tests(slow: bool, seconds: float) -> Row:
    """The tests that are about the device, in a process of pytest."""

    def measure(options: Options) -> Result:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            f"gpu and {'' if slow else 'not '}slow",
            "-p",
            "no:cacheprovider",
            "-rf",
            *DEVICE_TESTS,
        ]
        rehearsed = {"EDM2_REHEARSE_GPU": "1"} if options.rehearsal else {}
        done = subprocess.run(
            command, cwd=REPOSITORY, env={**os.environ, **rehearsed}, capture_output=True, text=True, encoding="utf-8", check=False
        )
        counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout.splitlines()[-1])}
        if done.returncode or not counts.get("passed"):
            failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
            raise RuntimeError("\n".join([f"{counts}", *failed, *done.stdout.splitlines()[-40 * (not failed) :], done.stderr[-2000:]]))
        return Result(f"{counts['passed']} passed", facts={"passed": counts["passed"]})

    what = "compiled networks, CUDA graphs" if slow else "parity, exact, resumed, half precision, masks, layouts, host synchronisations"
    return Row(f"gpu-tests{'-compiled' * slow}", f"the tests that are about a device: {what}", "all pass", measure, "cuda", seconds)


def _limits(options: Options) -> Result:
    (product,) = in_turn({"limit": limit(options)}, 1)["limit"]
    (copied,) = in_turn({"copy": Side("bench.limit:copy", {"device": options.device, "size": 2**20 if options.rehearsal else 2**32})}, 1)[
        "copy"
    ]
    words = f"{product['rate'] / 1e12:.3g} TFLOP/s, {copied['rate'] / 1e12:.2g} TB/s"
    return Result(words, facts={"flops_per_s": product["rate"], "bytes_per_s": copied["rate"]})


def _save(options: Options) -> Result:
    given = trained("E", options)
    side = Side("bench.training:product_save", {key: given[key] for key in ("recipe", "batch", "device")})
    measured = in_turn({"product": side}, options.repeats)["product"]
    waited = Spread.of([1e3 * run["seconds"] for run in measured])
    return Result(f"{waited.text(1)} ms", product=f"{waited.text(1)} ms", facts={"ms": waited.median})


def _probe(options: Options) -> Result:
    given = {"trained": 1, "epochs": 1} if options.rehearsal else {}
    sides = {name: Side(f"bench.probe:{make}", given) for name, make in (("plain", "shared_passes"), ("product", "product_grid"))}
    measured = in_turn(sides, min(options.repeats, 2))
    plain, product = (Spread.of([run["seconds"] for run in measured[name]]) for name in sides)
    return Result(f"{ratio(measured, 'plain', 'product').text(1)}×", f"{plain.text(1)} s", f"{product.text(1)} s")


def _speedrun(name: str) -> Row:
    """Training as in use, for three minutes after what compiling is expected to take."""

    def measure(options: Options) -> Result:
        recipe = recipe_of(NETS[name], options.rehearsal)
        facts = speedrun(recipe, 40 if options.rehearsal else IMAGES, 12 if options.rehearsal else 180 + COST_S["training"])
        images = (FORMATS[load_recipe(NETS[name]).data.format].train or IMAGES) * recipe.training.epochs
        hours = images / facts["in_use"] / 3600
        grown = facts["peak_bytes_last"] - facts["peak_bytes_first"]
        words = f"best {facts['best']:.0f} images/s; {facts['in_use']:.0f} with states and {facts['snapshots']:.0f} snapshots in the time, "
        words += f"at which its {recipe.training.epochs} epochs take {hours:.1f} h; peak of memory grew by {grown / 2**20:.0f} MiB"
        return Result(words, product=f"{facts['in_use']:.0f} images/s", facts={**facts, "hours": hours})

    what = f"training {NETS[name]} on a GPU as in use, by the stage itself, in the recipe's precision"
    return Row(f"gpu-speedrun-{name}", what, "≥ 8,100 images/s for CIFAR's networks", measure, "cuda", 360)


def _row(name: str, what: str, target: str, measure: Callable[[Options], Result], seconds: float) -> Row:
    return Row(name, what, target, measure, "cuda", seconds)


CONSTANTS = "constants in the weights, sums in place of them"
FOLDING = "weights made once a step, constants in them"
KEYS = "masks of dropout by image and step, in place of torch's own"
ROWS = [
    _row("gpu-limits", "the device's fastest bf16 matrix product, and copy within its memory", "the data sheet's", _limits, 15),
    _tests(False, 60),
    _train("E", 45),
    _profile("E", 25),
    _train("E", 130, compiled=True),
    _profile("E", 50, compiled=True),
    _draw("E", 35),
    _draw("E", 70, compiled=True),
    _row("gpu-save-E", "saving a state on a GPU, cifar10/E: how long the loop waits", "< 50 ms", _save, 25),
    _row(
        "gpu-extractor", "reading, checking and extracting samples on a GPU, Inception; plain: the network alone", "≥ 0.9", extracting, 25
    ),
    _row("gpu-probe", "a probe grid on a GPU, digits/E; plain: one pass a level for all blocks", "≥ 5×", _probe, 40),
    *(_train(name, 45) for name in ("C", "G", "tiny-E")),
    *(_without(name, "folding", FOLDING, 30) for name in ("E", "G", "C")),
    _without("G", "constants", CONSTANTS, 30),
    *(_without(name, "keys", KEYS, 30) for name in ("C", "G")),
    *(_train(name, 130, compiled=True) for name in ("C", "G", "tiny-E")),
    *(_draw(name, 70, compiled=True) for name in ("C", "G", "tiny-E")),
    *(_draw(name, 35) for name in ("C", "G", "tiny-E")),
    _tests(True, 150),
    *(_without(name, "folding", FOLDING, 170, compiled=True) for name in ("E", "G")),
    _without("G", "constants", CONSTANTS, 170, compiled=True),
    *(_without(name, "keys", KEYS, 170, compiled=True) for name in ("C", "G")),
    *(_speedrun(name) for name in NETS),
    _mode("reduce-overhead", "graphs", "training with the network as CUDA graphs", 170),
    _mode("max-autotune-no-cudagraphs", "max-autotune", "training compiled with a search for the fastest kernels", 400),
]
