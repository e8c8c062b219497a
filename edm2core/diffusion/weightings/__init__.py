"""Weightings of the loss by noise level, one file each. `WEIGHTINGS` in edm2core/registry.py lists them.

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
