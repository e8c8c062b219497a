"""A compiled network is used where it pays and gives the same numbers, and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from edm2core.config import load_recipe
from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.compiling import COST_S, Compiled, adopt, wanted
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.trainer import Trainer
from edm2core.stages.sample import compile_network, draw_images

TINY = {
    "network.multipliers": [1],
    "network.attention_resolutions": [8],
    "network.dropout": 0.13,
    "training.batch": 16,
    "sample.steps": 2,
}
COMPILER = (pytest.mark.slow, pytest.mark.gpu)  # torch's own, which takes its time
IMAGES = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(pick_device())


def trainer(config: str, **overrides: Any) -> Trainer:
    recipe = load_recipe(f"digits/{config}", TINY | overrides)
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    return Trainer(settings, PixelScale(), IMAGES)


def wrong(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
    """A compiler whose code gives numbers a little off."""
    return lambda *inputs: [output * 1.1 if output.is_floating_point() else output for output in graph(*inputs)]


def broken(_graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler here\nand more")


@pytest.mark.parametrize(
    ("config", "backend"),
    [
        ("G", "aot_eager"),
        *(pytest.param(config, "aot_eager", marks=pytest.mark.slow) for config in "CE"),
        pytest.param("G", "inductor", marks=COMPILER),
        *(pytest.param(config, "inductor", marks=(*COMPILER, pytest.mark.needs("gpu"))) for config in "CE"),
    ],
)
def test_a_compiled_training_goes_the_same_way(config: str, backend: str) -> None:
    """40 images in batches of 16, 16 and 8: the last is of another size than what is compiled."""
    plain, fast = trainer(config), trainer(config)
    plain.step()
    fast.step()
    outcome = fast.compile(backend=backend)
    assert outcome.adopted, outcome.words
    for _ in range(3):
        plain.step()
        fast.step()
    assert fast.close_window()["loss"] == pytest.approx(plain.close_window()["loss"], rel=1e-5)
    for name, weight in plain.state().items():
        if name.startswith("weights/"):
            torch.testing.assert_close(fast.state()[name], weight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("compiler", "words"), [(wrong, "its numbers are off by"), (broken, "no compiler here")])
def test_a_compiler_that_computes_something_else_or_fails_is_not_used(compiler: Callable[..., Any], words: str) -> None:
    plain, fast = trainer("C"), trainer("C")
    plain.step()
    fast.step()
    outcome = fast.compile(backend=compiler)
    assert not outcome.adopted
    assert words in outcome.words
    assert "\n" not in outcome.words
    assert fast.applied.module.network.fast is None
    plain.step()
    fast.step()
    assert all(torch.equal(a, b) for a, b in zip(plain.state().values(), fast.state().values(), strict=True))


@pytest.mark.parametrize(
    ("classes", "options"),
    [
        (10, {"backend": "aot_eager"}),
        pytest.param(0, {"backend": "aot_eager"}, marks=pytest.mark.slow),
        pytest.param(0, {}, marks=COMPILER),  # by itself, as a CUDA graph
    ],
)
def test_the_sampler_draws_the_same_images_compiled(classes: int, options: dict[str, Any]) -> None:
    recipe = load_recipe("digits/G", TINY | {"network.classes": classes})
    torch.manual_seed(0)
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion).eval().requires_grad_(False).to(pick_device())
    denoiser.network.head.gain.fill_(1.0)
    expected = draw_images(denoiser, recipe.sample, 0, range(4))
    compile_network(denoiser, recipe.sample, 4, **options)
    assert denoiser.network.fast is not None
    for count in (4, 3):
        drawn = draw_images(denoiser, recipe.sample, 0, range(count))
        assert abs(drawn.astype(int) - expected[:count]).max() <= (0 if options else 1)  # of 255; torch's compiler rounds otherwise


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("config", ["G", *(pytest.param(config, marks=pytest.mark.slow) for config in "CE")])
def test_half_precision_trains_as_float32_does_within_its_rounding(config: str, precision: str) -> None:
    rows = []
    for each in ("fp32", precision):
        training = trainer(config, **{"training.precision": each})
        for _ in range(3):
            training.step()
        rows.append(training.close_window())
    assert rows[1]["loss"] == pytest.approx(rows[0]["loss"], rel=0.02)
    assert rows[1]["nonfinite"] == 0


def test_outputs_that_are_not_finite_do_not_count_as_equal() -> None:
    network = build_network(load_recipe("digits/C", TINY).network).eval()
    x, c_noise = torch.full((2, 1, 8, 8), torch.nan), torch.zeros(2)

    def run() -> list[Tensor]:
        with torch.no_grad():
            return [network(x, c_noise)]

    outcome: Compiled = adopt(network, 2, run, "fp32", backend="eager")
    assert not outcome.adopted


def test_compiling_must_save_more_than_it_takes() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert not wanted("auto", cpu, 1e9, "training")
    assert not wanted("auto", gpu, COST_S["training"], "training")
    assert wanted("auto", gpu, 100 * COST_S["training"], "training")
    assert wanted("always", cpu, 0.0, "sampling")
    assert not wanted("never", gpu, 1e9, "sampling")
