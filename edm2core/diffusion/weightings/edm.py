"""EDM's weighting, with which the loss of an untrained network is 1 at every noise level (EDM: arXiv 2206.00364, table 1)."""

from torch import Tensor


def edm(sigma: Tensor, sigma_data: float) -> Tensor:
    """λ(σ) = (σ² + σ_data²)/(σ·σ_data)²."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
