"""A loss weighting between min-SNR and EDM's."""


def soft_min_snr(sigma, sigma_data, *, gamma: float = 5.0):
    """EDM's weight times γ/(SNR + γ), where SNR = (sigma_data/σ)²: a smooth min-SNR (arXiv 2303.09556)."""
    snr = (sigma_data / sigma) ** 2
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2 * gamma / (snr + gamma)
