"""Looks into a snapshot: magnitudes by level, u(σ), and the loss by noise level on training and held-out images."""

import math
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edm2core.config.settings import DiagnosticsSettings
from edm2core.data import load_prepared
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.devices import compute, pick_device
from edm2core.diffusion.diagnostics import activation_magnitudes, diagnostic_levels, log_variances, losses, weight_magnitudes
from edm2core.keyed_random import seed_of
from edm2core.snapshots import files as snapshot
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: diagnostics.json. Numbers that are not finite, since the training diverged, are null."""
    settings, device = DiagnosticsSettings.model_validate(work.settings), pick_device()
    compute(tf32=False)
    data = load_prepared(work.inputs["data"].all())
    denoiser = snapshot.load(work.inputs["snapshot"].all(), work.settings["ema"]).to(device)
    train = _some(data.train_images, data.train_labels, settings.images, denoiser, device)
    test = _some(data.test_images, data.test_labels, settings.images, denoiser, device)
    total, done = len(train[0]) * (1 + settings.levels) + len(test[0]) * settings.levels, 0

    def progress(images: int) -> None:
        nonlocal done
        done += images
        work.progress(done, total, unit="images")

    weights = weight_magnitudes(denoiser.network)
    activations = activation_magnitudes(denoiser, *train, settings.batch, progress)
    sigmas = diagnostic_levels(settings.levels)
    on_train = losses(denoiser, *train, sigmas, settings.batch, progress)
    on_test = losses(denoiser, *test, sigmas, settings.batch, progress) if len(test[0]) else None
    u = log_variances(denoiser, sigmas)
    facts = {
        "levels": [{"level": level, "activation": _finite(activations[level]), "weight": _finite(weights[level])} for level in weights],
        "activation": _finite(fmean(activations.values())) if activations else None,  # over the levels, which an own network has not
        "weight": _finite(fmean(weights.values())) if weights else None,
        "sigmas": sigmas,
        "log_variance": None if u is None else list(map(_finite, u)),
        "train_loss": list(map(_finite, on_train)),
        "test_loss": None if on_test is None else list(map(_finite, on_test)),
        "train_images": len(train[0]),
        "test_images": len(test[0]),
    }
    work.write_json("diagnostics.json", facts)


def _some(
    images: NDArray[np.uint8], labels: NDArray[np.int64], most: int, denoiser: Denoiser, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Random images of a split, the same in every call, at the network's scale, and their classes if the network is class-conditional."""
    order = np.random.Generator(np.random.Philox(seed_of("diagnostics", len(images)))).permutation(len(images))
    chosen = np.sort(order[:most])
    scaled: Tensor = denoiser.pixel_scale.to_network(torch.from_numpy(images[chosen]).to(device).float() / 255)
    return scaled, torch.from_numpy(labels[chosen]).to(device) if denoiser.network.settings.classes else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


if __name__ == "__main__":
    main("diagnostics", run)
