"""Weightings of the loss by noise level. `WEIGHTINGS` in edm2core/registry.py lists them.

A weighting of your own is a function of the protocol `Weighting` in a file of yours, which `diffusion.weighting` names; see
docs/how-to/own-code.md. The learned weighting exp(-u(σ)) of `diffusion.log_variance_features` multiplies any of them.
It evens the loss out over noise levels, whatever λ is, so that a λ of your own decides only where log_variance_features is 0.
"""

from typing import Protocol

from torch import Tensor


class Weighting(Protocol):
    """A weighting, which may have settings of its own as keyword arguments: those that its line in the registry names."""

    def __call__(self, sigma: Tensor, sigma_data: float, /) -> Tensor:
        """λ(σ) of the squared error of the denoised images D(x; σ), for noise levels of any shape: positive, of that shape and precision.

        `sigma_data` is the standard deviation of the images that preconditioning assumes. Nothing in it may wait for the device.
        """


def edm(sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ) = (σ² + σ_data²)/(σ·σ_data)²: the loss of an untrained network is 1 at every level (EDM: arXiv 2206.00364, table 1)."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def min_snr(sigma: Tensor, sigma_data: float, *, snr_limit: float = 5.0) -> Tensor:
    """λ(σ) = min(1/σ², γ), where γ is `snr_limit`. EDM's λ(σ) is 1/σ² + 1/σ_data².

    It is Min-SNR-γ for predicted clean images (Hang et al. 2023: arXiv 2303.09556, section 3.4). There the signal-to-noise ratio is α²/σ²
    of images scaled by α. EDM adds noise without scaling, so that α = 1.
    """
    return sigma.pow(-2).clamp(max=snr_limit)
