"""What a training costs beside its forwards and backwards: the optimiser and its averages, states, memory."""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.compare import Side, Spread, in_turn, ratio
from bench.network import plain_denoiser, trainer
from bench.rows import Options, Result, Row
from bench.worker import Work
from edm2core.config import load_recipe
from edm2core.store import open_store
from edm2core.store.scratch import Scratch
from edm2core.worker.states import Background, States

RECIPE = "cifar10/E"


def plain_update(recipe: str) -> Work:
    """torch's default Adam and three EMAs of ema-pytorch, on gradients that are there."""
    from ema_pytorch import EMA

    denoiser = plain_denoiser(load_recipe(recipe))
    for parameter in denoiser.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-4)
    averages = [EMA(denoiser, beta=0.9993, update_after_step=-1, update_every=1) for _ in range(3)]

    def work() -> None:
        optimizer.step()
        for average in averages:
            average.update()

    return work


def product_update(recipe: str) -> Work:
    """The trainer's weights made, gradients brought back, optimiser and three averages: all of a step but batch, forward and backward."""
    trained = trainer(recipe, 1)
    trained.step()
    gradients = {p: p.grad for p in trained.applied.module.parameters()}

    def work() -> None:
        trained.applied.refresh()
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        trained.applied.pull_back()
        trained._update(1)

    return work


def plain_save(recipe: str) -> Work:
    """What the loop waits for when weights, averages and moments are pickled where it stands."""
    trained = trainer(recipe, 1)
    trained.step()
    folder = Path(tempfile.mkdtemp())

    def work() -> None:
        torch.save(trained._live(), folder / "state.pth")

    return work


def product_save(recipe: str, batch: int, device: str = "cpu") -> Work:
    """What the loop waits for when a state is saved, and `cost` of all of it: processor time of copying and writing."""
    trained = trainer(recipe, batch, device=device)
    trained.step()
    folder = Path(tempfile.mkdtemp())
    background = Background()
    states = States(Scratch(open_store(str(folder / "store")), "scratch/trajectory/bench", 1), folder, background, "")

    def work() -> dict[str, float]:
        waited, begun = trained.copier.waited_s, time.perf_counter()
        copies = trained.copies()
        stalled = time.perf_counter() - begun
        states.save(trained.steps, trained.epoch, copies, [], stalled)
        trained.step()
        stalled += trained.copier.waited_s - waited
        background.finish()
        return {"seconds": stalled, "interval": states.interval, "cost": states.cost}

    return work


def step_peak(recipe: str, batch: int, overrides: dict[str, Any]) -> Work:
    """A step whose peak of memory is that of its process."""
    trained = trainer(recipe, batch, overrides)
    return trained.step


def _update(options: Options) -> Result:
    sides = {
        "plain": Side("bench.training:plain_update", {"recipe": RECIPE}, options.bare),
        "product": Side("bench.training:product_update", {"recipe": RECIPE}, options.tuned),
        "step": Side("bench.network:product_step", {"recipe": RECIPE, "batch": options.batch}, options.tuned),
    }
    found = in_turn(sides, options.repeats)
    part = Spread.of([100 * a["seconds"] / b["seconds"] for a, b in zip(found["product"], found["step"], strict=True)])
    plain, product = (Spread.of([1e3 * run["seconds"] for run in found[side]]) for side in ("plain", "product"))
    return Result(
        f"{part.text(1)} % of the step; {ratio(found, 'plain', 'product').text()}× plain",
        f"{plain.text(0)} ms",
        f"{product.text(0)} ms",
        cpu=f"{ratio(found, 'plain', 'product', 'cpu_seconds').text()}×",
    )


def _save(options: Options) -> Result:
    sides = {
        "plain": Side("bench.training:plain_save", {"recipe": RECIPE}, options.bare),
        "product": Side("bench.training:product_save", {"recipe": RECIPE, "batch": options.batch}, options.tuned),
    }
    found = in_turn(sides, options.repeats)
    plain, product = (Spread.of([1e3 * run["seconds"] for run in found[side]]) for side in ("plain", "product"))
    waits, core = (Spread.of([100 * run[what] / run["interval"] for run in found["product"]]) for what in ("seconds", "cost"))
    words = f"{product.text(1)} ms; with a state every {max(run['interval'] for run in found['product']):.0f} s"
    words += f" {waits.text(3)} % of the loop's time, and writing takes {core.text()} % of one core's"
    return Result(words, f"{plain.text(0)} ms", f"{product.text(1)} ms")


def _memory(options: Options) -> Result:
    ways: dict[str, dict[str, Any]] = {
        "as it is": {},
        "grad_checkpoint": {"training.grad_checkpoint": True},
        f"micro_batch {options.batch // 4}": {"training.micro_batch": options.batch // 4},
    }
    given = {"recipe": RECIPE, "batch": options.batch}
    sides = {name: Side("bench.training:step_peak", {**given, "overrides": changed}, options.tuned) for name, changed in ways.items()}
    sides["plain"] = Side("bench.network:plain_step", given, options.bare)
    found = in_turn(sides, max(2, options.repeats // 2))
    peaks = {name: max(run["peak_bytes"] for run in runs) / 2**30 for name, runs in found.items()}
    cost = {name: ratio(found, name, "as it is", "cpu_seconds").text() for name in list(ways)[1:]}
    words = [f"{name}: peak × {peaks[name] / peaks['as it is']:.2f}, time × {cost[name]}" for name in cost]
    return Result("; ".join(words), f"{peaks['plain']:.2f} GiB", f"{peaks['as it is']:.2f} GiB")


ROWS = [
    Row(
        "update",
        f"optimiser, three averages and weight normalisation, {RECIPE}, batch {{batch}}, {{threads}} threads",
        "≤ 3 % of the step",
        _update,
    ),
    Row("save", f"saving a state, {RECIPE}, on {{threads}} cores: how long the loop waits", "< 50 ms, < 0.5 %", _save),
    Row("memory", f"peak of a training step, {RECIPE}, batch {{batch}}", "settings that halve it, and their cost", _memory),
]
