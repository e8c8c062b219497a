"""Forward, sampling and training step of the networks, on a CPU: what a batch costs on either path."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.compare import Side, in_turn
from bench.plain import network as plain_network
from bench.rows import Options, Result, Row, compared
from bench.worker import Work
from edm2core.config import load_recipe
from edm2core.config.settings import Recipe, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.folding import fold_
from edm2core.diffusion.sampler import draw
from edm2core.diffusion.trainer import Trainer


def plain_forward(recipe: str, batch: int) -> Work:
    denoiser, x, sigma = plain_denoiser(load_recipe(recipe)).eval(), *inputs_of(load_recipe(recipe), batch)

    def work() -> None:
        with torch.no_grad():
            denoiser(x, sigma)

    return work


def product_forward(recipe: str, batch: int) -> Work:
    denoiser, x, sigma = product_denoiser(load_recipe(recipe)).eval(), *inputs_of(load_recipe(recipe), batch)

    def work() -> None:
        with torch.no_grad():
            denoiser(x, sigma)

    return work


def plain_sample(recipe: str, batch: int, steps: int) -> Work:
    denoiser, x, _ = plain_denoiser(load_recipe(recipe)).eval(), *inputs_of(load_recipe(recipe), batch)

    def work() -> None:
        plain_network.sample(denoiser, x, steps)

    return work


def product_sample(recipe: str, batch: int, steps: int) -> Work:
    denoiser, x, _ = product_denoiser(load_recipe(recipe)).eval(), *inputs_of(load_recipe(recipe), batch)

    def work() -> None:
        draw(denoiser, x, steps)

    return work


def plain_step(recipe: str, batch: int) -> Work:
    """Forward, backward and optimiser as a reference script writes them, its one average, and the loss as a number after every step."""
    settings = load_recipe(recipe)
    denoiser, x, sigma = plain_denoiser(settings).train(), *inputs_of(settings, batch)
    noise = torch.randn_like(x)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=settings.training.lr)
    average = ema_of(denoiser)

    def work() -> None:
        optimizer.zero_grad()
        loss = denoiser.loss(x, sigma, noise)
        loss.backward()
        optimizer.step()
        average.update()
        loss.item()

    return work


def product_step(recipe: str, batch: int) -> Work:
    """A step of the trainer: drawing the batch, forward, backward, optimiser and three averages."""
    return trainer(recipe, batch).step


def trainer(
    recipe: str,
    batch: int,
    overrides: Mapping[str, Any] | None = None,
    images: int = 0,
    device: str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> Trainer:
    """A trainer on so many random images, four batches of them where no number is given."""
    settings = load_recipe(recipe, {"training.batch": batch, "training.precision": "fp32", **(overrides or {})})
    trajectory = TrajectorySettings(network=settings.network, diffusion=settings.diffusion, training=settings.training, seed=0)
    data = torch.randint(0, 256, (images or 4 * batch, *shape_of(settings)), dtype=torch.uint8)
    return Trainer(trajectory, PixelScale(), data.to(device), rank, world_size)


def flops(recipe: str, backward: bool = False) -> int:
    """FLOPs of one image's forward, or of a training step of its forward and backward, by torch's counter on the plain network."""
    settings = load_recipe(recipe)
    with torch.device("meta"):
        denoiser, x = plain_network.Denoiser(settings.unet), torch.zeros(1, *shape_of(settings))
        sigma = torch.ones(1, 1, 1, 1)
        with FlopCounterMode(display=False) as counter:
            if backward:
                denoiser.loss(x, sigma, x).backward()
            else:
                denoiser(x, sigma)
    return int(counter.get_total_flops())


def ema_of(denoiser: torch.nn.Module):  # type: ignore[no-untyped-def]
    """The reference scripts' average, updated every step."""
    from ema_pytorch import EMA

    return EMA(denoiser, beta=0.9993, update_after_step=-1, update_every=1)


def plain_denoiser(recipe: Recipe) -> plain_network.Denoiser:
    denoiser = plain_network.Denoiser(recipe.unet)
    denoiser.load_state_dict(made(recipe).state_dict())
    return denoiser


def product_denoiser(recipe: Recipe) -> Denoiser:
    denoiser = made(recipe).requires_grad_(False)
    fold_(denoiser)
    return denoiser.to(memory_format=torch.channels_last)


def made(recipe: Recipe) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(build_network(recipe.network), recipe.diffusion)


def inputs_of(recipe: Recipe, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *shape_of(recipe), generator=generator)
    return x, torch.rand(batch, 1, 1, 1, generator=generator) + 0.1


def shape_of(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.network.image_channels, recipe.network.resolution, recipe.network.resolution


def _row(what: str, config: str, target: str) -> Row:
    """A batch through plain and product; `what` is forward, sample or step."""
    recipe, arguments = f"cifar10/{config}", {"steps": 2} if what == "sample" else {}
    evaluations = 3 if what == "sample" else 1

    def measure(options: Options) -> Result:
        given = {"recipe": recipe, "batch": options.batch, **arguments}
        sides = {
            "plain": Side(f"bench.network:plain_{what}", given, options.bare),
            "product": Side(f"bench.network:product_{what}", given, options.tuned),
            "limit": Side("bench.limit:sgemm", {}, options.tuned),
        }
        work = flops(recipe, backward=what == "step") * options.batch * evaluations
        return compared(in_turn(sides, options.repeats), work, "images", options.batch)

    names = {"forward": "forward", "sample": "sampling, 3 evaluations", "step": "training step"}
    return Row(f"{what}-{config}", f"{names[what]}, {recipe}, batch {{batch}}, {{threads}} threads", target, measure)


ROWS = [
    *(_row("forward", config, "≥ 1.10×" if config == "C" else "≥ 1.2×") for config in "CEG"),
    *(_row("sample", config, "≥ 1.10×" if config == "C" else "≥ 1.2×") for config in "CEG"),
    *(_row("step", config, "≥ 1.08×" if config == "C" else "≥ 1.2×") for config in "CEG"),
]
