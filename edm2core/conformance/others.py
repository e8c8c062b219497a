"""Checks of own solvers, weightings, schedules, optimizers, metrics and data formats."""

import time
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edm2core.config.settings import DataSettings, TrainingSettings
from edm2core.conformance import Check, Images, Outcome, ok, problem
from edm2core.data.formats.own import read_own
from edm2core.diffusion.noise_levels import karras
from edm2core.diffusion.optimizers import by_kind
from edm2core.diffusion.solvers import checked, evaluated_levels
from edm2core.metrics.compared import Value
from edm2core.metrics.own import own_value
from edm2core.registry import load

SIGMA_DATA = 0.5
REAL, SAMPLES = 1000, 600  # images that a metric is tried on: different numbers, as in runs
OFF = 0.1  # the largest relative error of the samples' deviation in 64 steps


def solver(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    """It is tried on images whose denoiser is known: independent normal pixels."""
    solve = checked(address, partial(load(address), **own))

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return x * SIGMA_DATA**2 / (sigma**2 + SIGMA_DATA**2)

    def noise(count: int, step: int) -> Tensor:
        return torch.stack([torch.randn(images.shape, generator=torch.Generator().manual_seed(step * 1000 + i)) for i in range(count)])

    def drawn(count: int, steps: int) -> Tensor:
        return solve(denoise, noise(count, 99).double() * 80, karras(steps).tolist(), partial(noise, count))

    def shapes() -> Outcome:
        levels = evaluated_levels(solve, karras(18).tolist())
        return ok(f"it gives images of the shape it was given; 18 steps take {len(levels)} evaluations of the network")

    def determinism() -> Outcome:
        if not torch.equal(drawn(2, 8), drawn(2, 8)):
            return problem("the same noise gives other images", "Draw no random numbers: `noise(step)` gives those of the step.")
        if not torch.allclose(drawn(3, 8)[:1], drawn(1, 8), atol=1e-5):
            return problem("an image depends on the images beside it", "Compute each image by itself: no norm or step size over the batch.")
        return ok("an image is the same each time, whatever is drawn beside it")

    def converges() -> Outcome:
        deviation = float(drawn(4, 64).std())
        what = f"in 64 steps, images whose deviation is {SIGMA_DATA} come out with {deviation:.3f}"
        do_next = "Check the step's equation: x moves along (x - denoise(x, σ)) / σ, and added noise must fit the next level."
        return ok(what) if abs(deviation / SIGMA_DATA - 1) < OFF else problem(what, do_next)

    return {"shapes": shapes, "determinism": determinism, "solution": converges}


def weighting(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    weigh = partial(load(address), **own)

    def values() -> Outcome:
        of_images = torch.logspace(-2.7, 1.9, 50).reshape(-1, 1, 1, 1)
        for sigma in (torch.ones((), dtype=torch.float64), of_images.double(), of_images):  # diagnostics ask for a single one
            kind, weight = sigma.dtype, weigh(sigma, SIGMA_DATA)
            if not isinstance(weight, Tensor) or weight.shape != sigma.shape or weight.dtype != kind:
                given = f"{weight.dtype} {list(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
                return problem(f"for σ of {kind} {list(sigma.shape)} it gives {given}", "Return a tensor of σ's shape and precision.")
            if not bool((weight > 0).all() and weight.isfinite().all()):
                return problem("it is not positive and finite at every σ from 0.002 to 80", "Keep denominators away from 0.")
        return ok(f"it is positive from σ = 0.002 ({float(weight[0]):.3g}) to 80 ({float(weight[-1]):.3g})")

    def learned() -> Outcome:
        what = "a learned weighting evens λ out where diffusion.log_variance_features is not 0, as it is in recipes from rung B on"
        return Outcome("note", what, "Set it to 0 for λ to decide alone.")

    return {"values": values, "learned weighting": learned}


def schedule(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    rate = partial(load(address), **own)
    training = TrainingSettings(epochs=1000, batch=1, lr=1e-2)

    def values() -> Outcome:
        epochs = [step / 10 for step in range(10_000)]
        rates = [rate(training, epoch) for epoch in epochs]
        for epoch, each in zip(epochs, rates, strict=True):
            if not (isinstance(each, float | int) and 0 <= each < float("inf")):
                return problem(f"after {epoch:g} epochs it gives {each!r}", "Return a float of 0 or more.")
        if rates != [rate(training, epoch) for epoch in epochs]:
            return problem("it gives other rates when asked again", "Compute the rate from the epoch alone.")
        return ok(f"with lr 0.01 its rates over 1000 epochs lie from {min(rates):.3g} to {max(rates):.3g}")

    return {"values": values}


def optimizer(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    def made_for(module: nn.Module) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = load(address)(*by_kind(module), 1e-2, **own)
        return made

    def trained(steps: int, cut: int | None = None) -> tuple[nn.Module, list[float]]:
        """A small network after some steps, and its losses. After `cut` steps the optimizer is made anew from its state."""
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 4))
        x, y = torch.randn(64, 16), torch.randn(64, 4)
        made, losses = made_for(module), []
        for step in range(steps):
            if step == cut:
                state, made = made.state_dict(), made_for(module)
                made.load_state_dict(state)
            made.zero_grad()
            loss = (module(x) - y).square().mean()
            loss.backward()
            made.step()
            losses.append(float(loss))
        return module, losses

    def parameters() -> Outcome:
        module = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 4))
        made = made_for(module)
        given = {id(p) for group in made.param_groups for p in group["params"]}
        if missing := [name for name, p in module.named_parameters() if id(p) not in given]:
            return problem(f"it leaves parameters out: {', '.join(missing)}", "Give every parameter of both lists to a group.")
        if absent := [group for group in made.param_groups if "lr" not in group]:
            return problem(f"{len(absent)} of its groups have no 'lr'", "The training sets group['lr'] before every step.")
        return ok("every parameter is in a group with a learning rate")

    def learns() -> Outcome:
        losses = trained(50)[1]
        what = f"50 steps bring a small loss from {losses[0]:.3g} to {losses[-1]:.3g}"
        return ok(what) if losses[-1] < losses[0] else problem(what, "Check the sign and size of its step.")

    def resume() -> Outcome:
        straight, cut = trained(6)[0], trained(6, cut=3)[0]
        if not all(torch.equal(a, b) for a, b in zip(straight.parameters(), cut.parameters(), strict=True)):
            keep = "Keep what it remembers of a parameter in `state[parameter]`, as tensors and numbers."
            return problem("stopped and continued, it takes other steps", keep)
        return ok("stopped and continued, it takes the same steps")

    return {"parameters": parameters, "loss": learns, "resume": resume}


def metric(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    draw = np.random.default_rng(0)
    drawn = ((REAL, 256), (SAMPLES, 256), (SAMPLES, 128))  # a run rarely draws as many samples as there are training images
    real, like, other = (draw.integers(0, high, (count, *images.shape), dtype=np.uint8) for count, high in drawn)

    def measured(samples: NDArray[np.uint8]) -> Value:
        return own_value(address, samples, real, **own)

    def values() -> Outcome:
        begun = time.monotonic()
        alike, different = measured(like), measured(other)
        took = time.monotonic() - begun
        if measured(like) != alike:
            return problem("it gives another value when asked again", "Seed the random numbers that it draws.")
        if wrong := [each.error for each in (alike, different) if each.error is not None and each.error < 0]:
            return problem(f"it gives a standard error of {wrong[0]:.4g}", "A standard error is 0 or more: check the sign, or give none.")
        if different.value == alike.value:
            what = f"images alike and darker ones both score {alike.value:.4g}, so it tells nothing apart"
            return problem(what, "Compute it from both sets of images.")
        if different.value < alike.value:
            what = f"darker images score {different.value:.4g}, better than images alike, {alike.value:.4g}"
            return Outcome("note", what, "Lower values count as better: give a distance, or 1 - x where x is a share.")
        return ok(f"images alike score {alike.value:.4g}, darker ones {different.value:.4g}; {took / 2:.1f} s for {SAMPLES} beside {REAL}")

    return {"values": values}


def data_format(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    settings = DataSettings.model_validate({"format": address, "own": own})

    def reads() -> Outcome:
        one, other = (read_own(None, settings) for _ in range(2))
        if any(not np.array_equal(a, b) for a, b in zip(one.train.images, other.train.images, strict=True)):
            return problem("it gives other images when read again", "Seed the random numbers that it draws.")
        shape = " x ".join(map(str, one.shape))
        counts = f"{len(one.train.labels)} for training, {len(one.test.labels)} for test"
        return ok(f"images {shape} of {len(one.classes)} classes, {counts}; the same when read again")

    return {"data": reads}
