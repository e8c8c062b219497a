"""Min-SNR-γ, which limits the weight of low noise levels (Hang et al. 2023: arXiv 2303.09556, section 3.4, for predicted clean images).

There the signal-to-noise ratio is α²/σ² of images scaled by α. EDM adds noise without scaling, so that α = 1.
"""

from torch import Tensor


def min_snr(sigma: Tensor, sigma_data: float, *, snr_limit: float = 5.0) -> Tensor:
    """λ(σ) = min(1/σ², γ), where γ is `snr_limit`. EDM's λ(σ) is 1/σ² + 1/σ_data²."""
    return sigma.pow(-2).clamp(max=snr_limit)
