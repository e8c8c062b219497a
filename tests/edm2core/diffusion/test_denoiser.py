import pytest
import torch
from torch import Tensor, nn

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.layers import normalize_weights_
from edm2core.diffusion.loss import Objective


def make_denoiser(weights: str = "forced") -> Denoiser:
    torch.manual_seed(0)
    settings = NetworkSettings(resolution=8, image_channels=1, channels=32, multipliers=(1,), blocks=2, weights=weights)  # type: ignore[arg-type]
    return Denoiser(build_network(settings), DiffusionSettings())


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images, noise = (torch.randn(3, 1, 8, 8, generator=generator) for _ in range(2))
    return images, torch.tensor([0.01, 0.5, 20.0]), noise


def test_sigma_may_be_a_number_a_vector_or_a_column_of_images() -> None:
    denoiser, (x, sigma, _) = make_denoiser(), batch()
    assert torch.equal(denoiser(x, sigma), denoiser(x, sigma[:, None, None, None]))
    torch.testing.assert_close(denoiser(x, 0.5), denoiser(x, torch.full((3,), 0.5)))
    torch.testing.assert_close(denoiser(x, torch.tensor(0.5)), denoiser(x, 0.5))
    assert denoiser.log_variance(sigma).shape == (3, 1, 1, 1)
    torch.testing.assert_close(denoiser.log_variance(0.5)[0], denoiser.log_variance(sigma)[1])
    assert denoiser.features(x, 0.5, ["out_1"])["out_1"].shape == (3, 32)


def test_little_noise_is_left_alone_and_much_is_forgotten() -> None:
    denoiser, (x, _, noise) = make_denoiser(), batch()
    denoiser.network = nn.Identity()  # type: ignore[assignment]
    denoiser.network.forward = lambda x, *_: torch.zeros_like(x)  # type: ignore[method-assign]
    torch.testing.assert_close(denoiser(x, 1e-4), x)
    assert denoiser(x + 1e4 * noise, 1e4).abs().max() < 1e-3


def test_the_networks_input_and_the_target_of_its_output_have_unit_variance() -> None:
    """What the preconditioning is for (EDM, appendix B.6)."""
    denoiser, seen = make_denoiser(), []
    denoiser.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(64, 1, 8, 8, generator=generator) for _ in range(2))
    for sigma in (0.01, 0.5, 50.0):
        noised = 0.5 * clean + sigma * noise
        with torch.no_grad():
            denoised = denoiser(noised, sigma)
            output = denoiser.network(seen[-1], torch.full((64,), sigma).log() / 4)
        assert seen[-1].std().item() == pytest.approx(1, rel=0.05)
        c_out = sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
        target = (0.5 * clean - (denoised - c_out * output)) / c_out
        assert target.std().item() == pytest.approx(1, rel=0.05)


def test_the_log_variances_weight_is_forced_where_weights_are_forced() -> None:
    for weights, changes in (("forced", True), ("plain", False)):
        denoiser = make_denoiser(weights)
        with torch.no_grad():
            denoiser.uncertainty.linear.weight.mul_(3)
        before, u = denoiser.uncertainty.linear.weight.clone(), denoiser.log_variance(1.0)
        normalize_weights_(denoiser)
        assert torch.equal(before, denoiser.uncertainty.linear.weight) is not changes
        torch.testing.assert_close(denoiser.log_variance(1.0), u, rtol=1e-3, atol=1e-4)


def test_under_autocast_only_the_networks_inside_is_rounded() -> None:
    denoiser, (x, sigma, noise) = make_denoiser(), batch()
    exact, u = denoiser(x, sigma), denoiser.log_variance(sigma)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = denoiser(x, sigma)
        assert torch.equal(denoiser.log_variance(sigma), u)
        assert Objective(denoiser)(x, sigma, noise).dtype == torch.float32
        assert denoiser.features(x, sigma)["out_1"].dtype == torch.float32
    assert rounded.dtype == torch.float32
    assert (rounded - exact)[0].abs().max() < 1e-3  # c_out is 0.01 there: were the skip rounded too, this would be 4e-3 × |x|
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.05)
