"""Training and sampling on a GPU, end to end: data, host and device together. Every function runs on a CPU too, as a test does."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench.compare import Measurements, Side, Spread, in_turn, ratio, share
from bench.network import ema_of, flops, plain_denoiser, shape_of, trainer
from bench.plain import network as plain_network
from bench.rows import Options, Result, Row
from bench.worker import Work
from edm2core.config import load_recipe
from edm2core.config.settings import SampleSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import compute
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.stages.sample import compile_network, draw_images
from pipelines.estimate import GPUS

BATCH, STEPS, IMAGES = 512, 20, 50_000
SAMPLED, NOISE_LEVELS = 400, 18


class OneByOne(Dataset[Tensor]):
    """Images as a reference script reads them: each flipped and scaled on its own, in the loader's process."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = torch.from_numpy(self.images[index]).float() / 127.5 - 1
        return image.flip(2) if torch.rand(()) < 0.5 else image


def plain_train(recipe: str, batch: int, steps: int, images: int, device: str) -> Work:
    """Eager float32 in the default layout, one loader worker, one average, the loss as a number after every step.

    A batch that does not fit the device is halved until it does, and its gradients are added up.
    """
    settings = load_recipe(recipe)
    denoiser = plain_denoiser(settings).train().to(device)
    data = np.random.default_rng(0).integers(0, 256, (images, *shape_of(settings)), dtype=np.uint8)
    batches = _endless(DataLoader(OneByOne(data), batch, shuffle=True, num_workers=1, drop_last=True, persistent_workers=True))
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=settings.training.lr)
    average = ema_of(denoiser)
    held = [batch]

    def step() -> None:
        x = next(batches).to(device)
        sigma = (torch.randn(batch, 1, 1, 1, device=device) * 1.2 - 1.2).exp()
        noise = torch.randn_like(x)
        optimizer.zero_grad()
        loss = torch.zeros((), device=device)
        for part in zip(*(tensor.split(held[0]) for tensor in (x, sigma, noise)), strict=True):
            partial = denoiser.loss(*part) * (len(part[0]) / batch)
            partial.backward()
            loss += partial.detach()
        optimizer.step()
        average.update()
        loss.item()

    def fitting() -> None:
        while True:
            try:
                return step()
            except torch.cuda.OutOfMemoryError:
                held[0] //= 2
                torch.cuda.empty_cache()

    return _repeated(fitting, steps, device, lambda: {"micro_batch": held[0]})


def product_train(recipe: str, batch: int, steps: int, images: int, device: str, compiled: bool = False) -> Work:
    """The trainer in bf16, its data on the device, and a row of the curve where one is due; `waits` are a step's host synchronisations.

    `compiled` as long trainings are. Raises RuntimeError where the compiled network's numbers are not those of the eager one.
    """
    trained = trainer(recipe, batch, {"training.precision": "bf16"}, images, device)
    if compiled and not (outcome := trained.compile()).adopted:
        raise RuntimeError(outcome.words)

    def step() -> None:
        trained.step()
        if trained.at_window_end:
            trained.close_window()

    return _repeated(step, steps, device, lambda: {"waits": _waits(trained.step)})


def plain_draw(recipe: str, count: int, noise_levels: int, device: str) -> Work:
    denoiser = plain_denoiser(load_recipe(recipe)).eval().to(device)
    x = torch.randn(count, *shape_of(load_recipe(recipe)))
    return _repeated(lambda: (plain_network.sample(denoiser, x.to(device), noise_levels) * 255).byte().cpu(), 1, device)


def product_draw(recipe: str, count: int, noise_levels: int, device: str, compiled: bool = False) -> Work:
    """The stage's own way from keyed noise to uint8 images on the host."""
    settings = load_recipe(recipe)
    torch.manual_seed(0)
    compute(tf32=True)
    made = Denoiser(build_network(settings.network), settings.diffusion).requires_grad_(False).eval()
    denoiser = prepare_for_inference(made, torch.device(device))
    sampler = SampleSettings.model_validate({"steps": noise_levels, "precision": "bf16"})
    if compiled:
        compile_network(denoiser, sampler, count)
        if denoiser.network.fast is None:
            raise RuntimeError("the compiled network's numbers are not those of the eager one")
    return _repeated(lambda: draw_images(denoiser, sampler, 0, range(count)), 1, device)


def _endless(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    while True:
        yield from loader


def _repeated(step: Callable[[], object], steps: int, device: str, facts: Callable[[], dict[str, float]] | None = None) -> Work:
    """`steps` of them after one that does not count, since it finds the memory that the other sides were given in between."""

    def work() -> dict[str, float]:
        step()
        seconds = _timed(lambda: [step() for _ in range(steps)], device)
        found = {"seconds": seconds, **(facts() if facts else {})}
        if device == "cuda":
            torch.cuda.empty_cache()
        return found

    return work


def _timed(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def _waits(step: Callable[[], None]) -> float:
    """How often a step makes the host wait for the device, by torch's own count."""
    if not torch.cuda.is_available():
        return 0.0
    with warnings.catch_warnings(record=True) as caught, contextlib.ExitStack() as after:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        after.callback(torch.cuda.set_sync_debug_mode, "default")
        step()
    return float(sum("synchroniz" in str(warning.message) for warning in caught))


def utilisation(flops_a_second: float, name: str) -> str:
    """MFU: the share of the peak that the GPU's data sheet states for bf16, where the GPU is known here."""
    plain = name.lower().replace(" ", "")
    peaks = [gpu.half for known, gpu in GPUS.items() if known in plain]
    return f"MFU {flops_a_second / peaks[0]:.2f}" if peaks else f"{flops_a_second / 1e12:.0f} TFLOP/s"


def _result(found: Measurements, images: int, work: float) -> Result:
    speed = {side: Spread.of([images / run["seconds"] for run in found[side]]) for side in ("plain", "product")}
    used = utilisation(work * speed["product"].median / images, torch.cuda.get_device_name())
    waits = [f"; {run['waits']:.0f} host synchronisations a step" for run in found["product"] if "waits" in run][-1:]
    return Result(
        f"{ratio(found, 'plain', 'product').text()}×, {used}{''.join(waits)}; not compiled {ratio(found, 'plain', 'eager').text()}×",
        f"{speed['plain'].text(0)} images/s",
        f"{speed['product'].text(0)} images/s",
        f"{share(found, 'plain', work).text()} → {share(found, 'product', work).text()}",
    )


def _row(name: str, what: str, target: str, sides: tuple[str, str], given: dict[str, Any], images: int, work: Callable[[], float]) -> Row:
    def measure(options: Options) -> Result:
        made = {
            "plain": Side(f"bench.gpu:{sides[0]}", {**given, "device": "cuda"}),
            "eager": Side(f"bench.gpu:{sides[1]}", {**given, "device": "cuda"}),
            "product": Side(f"bench.gpu:{sides[1]}", {**given, "device": "cuda", "compiled": True}),
            "limit": Side("bench.limit:bf16"),
        }
        return _result(in_turn(made, options.repeats, warmup=2), images, work())

    return Row(name, what, target, measure, "cuda")


def _train(recipe: str, name: str) -> Row:
    return _row(
        f"gpu-train-{name}",
        f"training on a GPU, {recipe}, batch {BATCH}, end to end",
        "≥ 3×, MFU ≥ 0.35, 0 host synchronisations",
        ("plain_train", "product_train"),
        {"recipe": recipe, "batch": BATCH, "steps": STEPS, "images": IMAGES},
        STEPS * BATCH,
        lambda: STEPS * BATCH * flops(recipe, backward=True),
    )


def _draw(recipe: str, name: str) -> Row:
    evaluations = 2 * NOISE_LEVELS - 1
    return _row(
        f"gpu-sample-{name}",
        f"sampling on a GPU, {recipe}, {SAMPLED} images, {evaluations} evaluations, bf16, end to end",
        "≥ 3×, MFU ≥ 0.35",
        ("plain_draw", "product_draw"),
        {"recipe": recipe, "count": SAMPLED, "noise_levels": NOISE_LEVELS},
        SAMPLED,
        lambda: SAMPLED * evaluations * flops(recipe),
    )


NETS = {"cifar10/C": "C", "cifar10/E": "E", "cifar10/G": "G", "tinyimagenet/E": "tiny-E"}
ROWS = [*(_train(recipe, name) for recipe, name in NETS.items()), *(_draw(recipe, name) for recipe, name in NETS.items())]
