"""What single choices gain: the product's path without one of them against the product's path. Also what was tried and is not used."""

from typing import Any

import torch

from bench.compare import Side, Spread, in_turn, ratio
from bench.gpu.sides import LEFT_OUT
from bench.network import inputs_of, made, product_denoiser, trainer
from bench.rows import Options, Result, Row
from bench.worker import Work
from components.launcher.processes import MALLOC
from edm2core.config import load_recipe
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.folding import fold_

TUNABLES = MALLOC["GLIBC_TUNABLES"].split(":")
SMALL_PAGES = {"GLIBC_TUNABLES": ":".join(tunable for tunable in TUNABLES if "hugetlb" not in tunable)}
NO_TUNABLES = {"GLIBC_TUNABLES": ""}
CONVOLVED = {"recipe": "cifar10/E"}


def forward(recipe: str, batch: int, without: str = "", compiled: bool = False) -> Work:
    """A forward of the frozen network, `without` channels_last or folding."""
    settings = load_recipe(recipe)
    denoiser = _denoiser(recipe, without).eval()
    if compiled:
        denoiser.network.compile()
    x, sigma = inputs_of(settings, batch)
    if compiled:
        with torch.no_grad():
            torch.testing.assert_close(denoiser(x, sigma), product_denoiser(settings).eval()(x, sigma), rtol=1e-3, atol=1e-3)

    def work() -> None:
        with torch.no_grad():
            denoiser(x, sigma)

    return work


def _denoiser(recipe: str, without: str) -> Denoiser:
    settings = load_recipe(recipe)
    if without not in ("channels_last", "folding"):
        return product_denoiser(settings)
    denoiser = made(settings).requires_grad_(False)
    if without == "folding":
        return denoiser.to(memory_format=torch.channels_last)
    fold_(denoiser)
    return denoiser


def averages(recipe: str, one_by_one: bool = False) -> Work:
    """Three averages of all weights."""
    weights = [p.detach() for p in made(load_recipe(recipe)).parameters()]
    kept = [[weight.clone() for weight in weights] for _ in range(3)]

    def work() -> None:
        for average in kept:
            if one_by_one:
                for mean, weight in zip(average, weights, strict=True):
                    mean.lerp_(weight, 1e-3)
            else:
                torch._foreach_lerp_(average, weights, 1e-3)

    return work


def adam(recipe: str, fused: bool) -> Work:
    """A step of Adam over all weights."""
    weights = list(made(load_recipe(recipe)).parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    return torch.optim.Adam(weights, lr=1e-4, fused=fused).step


def step(recipe: str, batch: int, dropout: float | None = None, torchs_masks: bool = False, compiled: bool = False) -> Work:
    """A training step, of the recipe's dropout or another, its masks by key or drawn by torch."""
    if torchs_masks:
        LEFT_OUT["keys"]()
    trained = trainer(recipe, batch, {} if dropout is None else {"network.dropout": dropout})
    if compiled:
        trained.step()
        trained.applied.module.network.fast = batch, torch.compile(trained.applied.module.network.evaluate, dynamic=False)
    return trained.step


def _row(name: str, what: str, make: str, given: dict[str, Any], without: dict[str, Any], environment: dict[str, str] | None = None) -> Row:
    """`make` with `given` against the same with `without` changed, or in another environment."""

    def measure(options: Options) -> Result:
        sized = {"batch": options.batch} if make in ("forward", "step") else {}
        sides = {
            "without": Side(f"bench.choices:{make}", {**given, **sized, **without}, {**options.tuned, **(environment or {})}),
            "with": Side(f"bench.choices:{make}", {**given, **sized}, options.tuned),
        }
        found = in_turn(sides, options.repeats)
        slow, fast = (Spread.of([run["seconds"] for run in found[side]]) for side in sides)
        cpu = ratio(found, "without", "with", "cpu_seconds")
        return Result(f"{ratio(found, 'without', 'with').text()}×", f"{slow.text(3)} s", f"{fast.text(3)} s", cpu=f"{cpu.text()}×")

    return Row(f"choice-{name}", what, "its gain", measure)


ROWS = [
    _row(
        "malloc-forward",
        "memory kept in the heap on huge pages, forward of cifar10/E, batch {batch}",
        "forward",
        CONVOLVED,
        {},
        NO_TUNABLES,
    ),
    _row(
        "malloc-step",
        "memory kept in the heap on huge pages, training step of cifar10/E, batch {batch}",
        "step",
        CONVOLVED,
        {},
        NO_TUNABLES,
    ),
    _row("hugepages", "of that the huge pages, forward of cifar10/E, batch {batch}", "forward", CONVOLVED, {}, SMALL_PAGES),
    _row("channels-last", "channels_last, forward of cifar10/E, batch {batch}", "forward", CONVOLVED, {"without": "channels_last"}),
    _row("folding", "weights folded, forward of cifar10/E, batch {batch}", "forward", CONVOLVED, {"without": "folding"}),
    _row("foreach", "averages by foreach, three of cifar10/E", "averages", CONVOLVED, {"one_by_one": True}),
    _row("fused-adam", "fused Adam, cifar10/E", "adam", {**CONVOLVED, "fused": True}, {"fused": False}),
    _row("dropout", "without: dropout 0; a step of cifar10/E, batch {batch}, so its mask's cost", "step", CONVOLVED, {"dropout": 0.0}),
    *(
        _row(
            f"masks-{'compiled' if compiled else 'eager'}-{recipe[-1]}",
            f"without: torch's own dropout; a {'compiled ' * compiled}step of {recipe}, batch {{batch}}, so what masks by key cost",
            "step",
            {"recipe": recipe, "compiled": compiled},
            {"torchs_masks": True},
        )
        for recipe in ("cifar10/C", "cifar10/G")
        for compiled in (False, True)
    ),
    _row("compile", "without: torch.compile; forward of cifar10/C, batch {batch}", "forward", {"recipe": "cifar10/C"}, {"compiled": True}),
]
