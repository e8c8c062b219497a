"""The optimizers, schedules and weightings that settings choose: what each computes, and that a training with it resumes."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from edm2core.config import load_recipe
from edm2core.config.settings import DiffusionSettings, TrainingSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.layers import Learned, Table
from edm2core.diffusion.loss import edm, min_snr
from edm2core.diffusion.optimizers import Muon, adamw, by_kind
from edm2core.diffusion.schedules import learning_rate
from edm2core.diffusion.trainer import Trainer
from edm2core.errors import InputError

IMAGES = torch.arange(24 * 64, dtype=torch.int64).mul(2654435761).remainder(251).to(torch.uint8).view(24, 1, 8, 8)
ADAMW = {"training.optimizer": "adamw", "training.weight_decay": 0.1}
MUON = {"training.optimizer": "muon", "training.clip_norm": 1.0}


def trainer(config: str, overrides: dict[str, Any]) -> Trainer:
    small = {"training.batch": 8, "network.multipliers": [1], "network.attention_resolutions": [8], "network.dropout": 0.1}
    recipe = load_recipe(f"digits/{config}", {**small, **overrides})
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=3)
    return Trainer(settings, PixelScale(), IMAGES, labels=torch.arange(24) % 10)


def trained(training: Trainer, steps: int) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        training.step()
    return training.state()


@pytest.mark.parametrize(
    ("config", "overrides"),
    [
        ("C", ADAMW),
        ("C", MUON),
        ("G", MUON),
        ("C", {"diffusion.weighting": "min_snr", "diffusion.log_variance_features": 0, "training.lr_changes": "cosine"}),
    ],
    ids=["adamw", "muon", "muon-forced", "min_snr-cosine"],
)
def test_a_run_stopped_and_resumed_gives_the_same_bits(config: str, overrides: dict[str, Any]) -> None:
    whole = trained(trainer(config, overrides), 4)
    second = trainer(config, overrides)
    second.load_state(trained(trainer(config, overrides), 2))
    resumed = trained(second, 2)
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("overrides", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_step_without_finite_gradients_changes_nothing_and_is_counted(overrides: dict[str, Any]) -> None:
    training = trainer("C", overrides)
    hook = training.denoiser.network.stem.weight.register_hook(lambda gradient: gradient * float("nan"))
    trained(training, 1)  # the first step, in which moments are made
    hook.remove()
    before = trained(training, 1)
    hook = training.denoiser.network.stem.weight.register_hook(lambda gradient: gradient * float("nan"))
    after = trained(training, 1)
    hook.remove()
    kept = [name for name in before if name.startswith(("weights/", "adamw/", "muon/"))]
    assert any(name.startswith(("adamw/", "muon/")) for name in kept)
    assert all(torch.equal(after[name], before[name]) and bool(after[name].isfinite().all()) for name in kept)
    assert training.close_window()["nonfinite"] == 2


def test_a_learned_parameter_is_a_matrix_or_another() -> None:
    table, embedding, kernel = Table(10, 8, learned=Learned()), nn.Embedding(5, 4), nn.Conv2d(3, 4, 3)
    module = nn.ModuleList([table, embedding, kernel, nn.Linear(6, 1, bias=False), nn.GroupNorm(2, 4)])
    matrices, others = by_kind(module)
    assert [id(p) for p in matrices] == [id(kernel.weight)]
    assert len(others) == len(list(module.parameters())) - 1


def test_muons_step_is_that_of_torchs_muon_on_the_kernel_as_a_matrix() -> None:
    kernel = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last))
    gain = nn.Parameter(torch.ones(()))
    matrix = nn.Parameter(kernel.detach().permute(0, 2, 3, 1).reshape(6, -1).clone())
    ours = Muon([kernel], [gain], 0.1, momentum=0.9)
    theirs = torch.optim.Muon([matrix], 0.1, 0.0, 0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        kernel.grad, gain.grad = torch.randn_like(kernel), torch.ones(())
        matrix.grad = kernel.grad.permute(0, 2, 3, 1).reshape(6, -1).clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(kernel.detach().permute(0, 2, 3, 1).reshape(6, -1), matrix.detach(), rtol=0, atol=0)
    assert float(gain.detach()) == pytest.approx(1 - 3 * 0.1, abs=1e-4)  # Adam's steps along a constant gradient


def test_a_muon_step_is_orthogonal_and_of_adams_size() -> None:
    weight = nn.Parameter(torch.zeros(16, 64))
    optimizer = Muon([weight], [], 0.1)
    weight.grad = torch.randn(16, 64)
    optimizer.step()
    values = torch.linalg.svdvals(weight.detach()) / (0.1 * 0.2 * 8)  # 0.2 √max(rows, columns)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.3
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.2)


def test_weight_decay_takes_matrices_alone() -> None:
    weight, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    for build in (adamw, Muon):
        weight.data.fill_(1.0)
        weight.grad, bias.grad = torch.zeros(2, 2), torch.zeros(2)
        build([weight], [bias], 0.1, weight_decay=0.5).step()
        torch.testing.assert_close(weight.detach(), torch.full((2, 2), 0.95))
        torch.testing.assert_close(bias.detach(), torch.ones(2))


def test_clipping_scales_the_gradient_down_to_its_norm() -> None:
    free, clipped = trainer("C", {}), trainer("C", {"training.clip_norm": 1e-3})
    for training in (free, clipped):
        trained(training, 1)
    norms = [math.hypot(*(float(p.grad.norm()) for p in t.parameters.values() if p.grad is not None)) for t in (free, clipped)]
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_the_cosine_warms_up_falls_to_its_end_and_stays() -> None:
    training = TrainingSettings(epochs=100, batch=1, lr=0.4, warmup_epochs=10, lr_changes="cosine", lr_end=0.1)
    assert training.lr_end_epoch == 100
    rates = [learning_rate(training, epoch) for epoch in (0, 5, 10, 55, 100, 300)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.22, 0.04, 0.04])
    again = TrainingSettings.model_validate(training.model_dump(mode="json"))
    assert again == training


def test_a_constant_rate_only_warms_up() -> None:
    training = TrainingSettings(epochs=100, batch=1, lr=0.4, warmup_epochs=10, lr_changes="constant")
    assert [learning_rate(training, epoch) for epoch in (0, 5, 10, 99)] == pytest.approx([0, 0.2, 0.4, 0.4])


def test_min_snr_limits_the_signal_to_noise_ratio() -> None:
    sigma = torch.tensor([0.01, 0.5, 2.0])
    torch.testing.assert_close(min_snr(sigma, 0.5, snr_limit=5.0), torch.tensor([5.0, 4.0, 0.25]))
    torch.testing.assert_close(edm(sigma, 0.5), sigma**-2 + 4)  # above the limit they differ by a constant


def test_settings_of_other_choices_are_refused() -> None:
    one = {"epochs": 9, "batch": 1, "lr": 0.1}
    for values in (
        {"weight_decay": 0.1},
        {"momentum": 0.9},
        {"optimizer": "adamw", "momentum": 0.9},
        {"lr_end": 0.1},
        {"lr_changes": "constant", "t_ref_epochs": 3},
        {"lr_changes": "cosine", "warmup_epochs": 9},
        {"optimizer": "muon", "exact": True},
    ):
        with pytest.raises(ValueError, match=r"has none|not over|bfloat16"):
            TrainingSettings.model_validate({**one, **values})
    assert TrainingSettings.model_validate({**one, "optimizer": "adamw"}).weight_decay == 0.01
    assert DiffusionSettings.model_validate({"weighting": "min_snr"}).log_variance_features == 0
    for wrong in ({"weighting": "min_snr", "log_variance_features": 128}, {"snr_limit": 3.0}):
        with pytest.raises(ValueError, match=r"evens min_snr out|has none"):
            DiffusionSettings.model_validate(wrong)


def test_a_recipe_that_sets_what_a_choice_has_not_is_refused_by_its_line() -> None:
    with pytest.raises(InputError, match="the schedule 'constant' has none"):
        load_recipe("digits/G", {"training.lr_changes": "constant"})
