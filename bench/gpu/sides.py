"""What the rows for a GPU time: training and sampling end to end, with data, host and device. Every function runs on a CPU too."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import edm2core.diffusion.trainer
from bench.network import ema_of, plain_denoiser, shape_of, trainer
from bench.plain import network as plain_network
from bench.worker import Work
from edm2core.config import load_recipe
from edm2core.config.settings import SampleSettings
from edm2core.diffusion import folding, unet
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import compute
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.diffusion.layers import normalize_weights_
from edm2core.stages.sample import compile_network, draw_images


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


def product_train(
    recipe: str, batch: int, steps: int, images: int, device: str, compiled: bool = False, without: str = "", mode: str | None = None
) -> Work:
    """The trainer in bf16, its data on the device, and a row of the curve where one is due.

    `compiled` as long trainings are, or by another of torch.compile's modes. `without` leaves out one of `LEFT_OUT`. Reports `waits`, a
    step's host synchronisations, and `peak_bytes` of the device. Raises RuntimeError where the compiled network's numbers are not those of
    the eager one.
    """
    if without:
        LEFT_OUT[without]()
    trained = trainer(recipe, batch, {"training.precision": "bf16"}, images, device)
    trained.step()  # the first makes the weights that the network applies
    if compiled and not (outcome := trained.compile(**({"mode": mode} if mode else {}))).adopted:
        raise RuntimeError(outcome.words)

    def step() -> None:
        trained.step()
        if trained.at_window_end:
            trained.close_window()

    return _repeated(step, steps, device, lambda: {"waits": _waits(trained.step)})


def _without_constants() -> None:
    """Networks apply SiLU's 1/0.596 and the shares of sums where the paper has them; weights are still normalised once a step."""
    folding.__dict__["_with_constants"] = lambda denoiser: None


def _without_folding() -> None:
    """Networks normalise their weights in every forward."""
    edm2core.diffusion.trainer.__dict__["FoldedForTraining"] = Unfolded


def _without_keys() -> None:
    """Dropout's masks are torch's own, so that they depend on how the work is divided."""
    unet.__dict__["dropout"] = lambda x, rate, keys: F.dropout(x, rate)


LEFT_OUT: dict[str, Callable[[], None]] = {"constants": _without_constants, "folding": _without_folding, "keys": _without_keys}
"""What a training step can do without, so that its gain or its cost is measured. Each changes the process that it is called in."""


class Unfolded:
    """Stands in for FoldedForTraining, and folds nothing."""

    def __init__(self, stored: Denoiser) -> None:
        self.module = stored

    def refresh(self) -> None:
        normalize_weights_(self.module)

    def pull_back(self) -> None:
        pass


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
        measured = {"seconds": seconds, **(facts() if facts else {})}
        if device == "cuda":
            measured["peak_bytes"] = torch.cuda.max_memory_allocated()
            torch.cuda.empty_cache()
        return measured

    return work


def _timed(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
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
