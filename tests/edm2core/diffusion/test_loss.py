import torch

from edm2core.config.settings import DiffusionSettings
from edm2core.diffusion.loss import Objective, noise_levels
from tests.edm2core.diffusion.test_denoiser import batch, make_denoiser


def test_the_loss_is_as_its_formula_says() -> None:
    denoiser, (x, sigma, noise) = make_denoiser(), batch()
    u = denoiser.log_variance(sigma).double()
    column = sigma[:, None, None, None]
    error = (denoiser(x + column * noise, sigma) - x).double()
    weight = (column.double() ** 2 + 0.25) / (column.double() * 0.5) ** 2
    losses = (weight / u.exp() * error**2 + u).mean(dim=(1, 2, 3))
    torch.testing.assert_close(Objective(denoiser)(x, sigma, noise).double(), losses)


def test_noise_levels_are_log_normal() -> None:
    levels = noise_levels(torch.tensor([-1.0, 0.0, 1.0]), DiffusionSettings(p_mean=-0.4, p_std=1.0))
    torch.testing.assert_close(levels.log(), torch.tensor([-1.4, -0.4, 0.6]))


def test_one_forward_of_the_objective_gives_every_parameter_a_gradient() -> None:
    denoiser = make_denoiser()
    Objective(denoiser)(*batch()).mean().backward()
    assert [name for name, parameter in denoiser.named_parameters() if parameter.grad is None] == []


def test_the_objective_is_one_graph() -> None:
    torch.compiler.reset()
    objective = Objective(make_denoiser())
    torch.testing.assert_close(torch.compile(objective, backend="eager", fullgraph=True)(*batch()), objective(*batch()))
