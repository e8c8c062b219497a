"""How a trained network is made ready to be run many times."""

from __future__ import annotations

import torch

from edm2core.diffusion.applied import fold_
from edm2core.diffusion.denoiser import Denoiser


def prepare_for_inference(denoiser: Denoiser, device: torch.device) -> Denoiser:
    """The frozen denoiser itself, on the device, weights folded, channels_last. Its state dict is no longer the stored one."""
    fold_(denoiser)
    return denoiser.to(device).to(memory_format=torch.channels_last)
