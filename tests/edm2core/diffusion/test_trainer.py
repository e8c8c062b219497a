"""One trajectory, however it is cut up: over processes, over micro-batches, over restarts."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from edm2core.config import load_recipe
from edm2core.config.settings import TrainingSettings, TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.batches import Batch, epoch_order
from edm2core.diffusion.schedules import learning_rate
from edm2core.diffusion.trainer import Trainer
from edm2core.errors import EdmError
from tests.processes import processes

IMAGES = torch.from_numpy((load_digits().images[:40] * (255 / 16)).astype("uint8"))[:, None]

STEPS = 8  # of processes together: nearly three epochs
DROPPING = {"network.dropout": 0.13}
GOLDEN = {"order": [7, 12, 1, 13], "sigma": [0.177098, 0.470075, 6.915074], "loss": 2.016365}


def settings(config: str = "G", **overrides: Any) -> TrajectorySettings:
    small = {"network.multipliers": [1], "network.attention_resolutions": [8], "training.batch": 16}
    recipe = load_recipe(f"digits/{config}", {**small, **overrides})
    return TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=3)


def trained(trainer: Trainer, steps: int) -> dict[str, torch.Tensor]:
    for _ in range(steps):
        trainer.step()
    return trainer.state()


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("config", ["C", "E", "G"])
@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.13])
def test_a_run_stopped_and_resumed_gives_the_same_bits(config: str, dropout: float) -> None:
    cut = settings(config, **{"network.dropout": dropout, "training.flip": True})
    whole = trained(Trainer(cut, PixelScale(), IMAGES), 8)
    for stop in (1, 3, 5):  # inside an epoch, at its end, after it
        first = trained(Trainer(cut, PixelScale(), IMAGES), stop)
        second = Trainer(cut, PixelScale(), IMAGES)
        second.load_state(first)
        assert same_bits(trained(second, 8 - stop), whole)


def test_a_state_copied_beside_the_next_step_is_that_of_its_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(settings("E"), PixelScale(), IMAGES)
    expected = trained(trainer, 2)
    waited_for, settle = threading.Event(), trainer.copier.settle
    trainer.copier._thread.submit(waited_for.wait, 60)  # no copying begins before the step waits for it
    copies = trainer.copies()
    monkeypatch.setattr(trainer.copier, "settle", lambda: (waited_for.set(), settle()))
    trainer.step()
    assert waited_for.is_set()
    assert same_bits(copies.result(), expected)
    assert not same_bits(trainer.state(), expected)


def test_half_precision_resumes_with_its_loss_scale() -> None:
    cut = settings(**{"training.precision": "bf16"})
    whole = trained(Trainer(cut, PixelScale(), IMAGES), 4)
    second = Trainer(cut, PixelScale(), IMAGES)
    second.load_state(trained(Trainer(cut, PixelScale(), IMAGES), 2))
    assert same_bits(trained(second, 2), whole)


def losses(trainer: Trainer, steps: int) -> list[float]:
    """The loss of every step, over all processes."""
    found = []
    for _ in range(steps):
        trainer.step()
        found.append(trainer.close_window()["loss"])
    return found


@pytest.mark.parametrize("config", ["C", "E", "G"])
@pytest.mark.parametrize("micro_batch", [5, 16])
def test_micro_batches_change_rounding_only(micro_batch: int, config: str) -> None:
    cut = settings(config, **DROPPING)
    first, second = (
        Trainer(each, PixelScale(), IMAGES) for each in (cut, settings(config, **DROPPING, **{"training.micro_batch": micro_batch}))
    )
    assert losses(second, 6) == pytest.approx(losses(first, 6), rel=1e-4)
    whole, parts = first.state(), second.state()
    for name in whole:
        if name.startswith("weights/"):
            torch.testing.assert_close(parts[name], whole[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_both_ways_to_save_memory_together_change_rounding_only(config: str) -> None:
    whole = trained(Trainer(settings(config, **DROPPING), PixelScale(), IMAGES), 3)
    saving = {**DROPPING, "training.micro_batch": 5, "training.grad_checkpoint": True}
    less = trained(Trainer(settings(config, **saving), PixelScale(), IMAGES), 3)
    for name in whole:
        if name.startswith("weights/"):
            torch.testing.assert_close(less[name], whole[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_activations_computed_again_change_nothing(config: str) -> None:
    kept = trained(Trainer(settings(config, **{"network.dropout": 0.13}), PixelScale(), IMAGES), 3)
    again = trained(Trainer(settings(config, **{"network.dropout": 0.13, "training.grad_checkpoint": True}), PixelScale(), IMAGES), 3)
    assert same_bits(kept, again)


def _broken(*_: object) -> Any:
    raise RuntimeError("no compiler here")


def _orthogonalise_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon without its bfloat16, which makes percents of a step of the last bit in which the gradients of processes differ."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.double)


def _process(rank: int, world_size: int, folder: str, backend: str, config: str, changed: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    _orthogonalise_exactly(pytest.MonkeyPatch())
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    trainer = Trainer(settings(config, **changed), PixelScale(), IMAGES, rank, world_size)
    found = losses(trainer, 1)
    if backend:
        outcome = trainer.compile(backend=_broken if backend == "broken in one" and rank else "aot_eager")
        assert outcome.adopted == (backend == "aot_eager"), outcome.words
    found += losses(trainer, STEPS - 1)
    if rank == 0:
        weights = {k: v for k, v in trainer.state().items() if k.startswith("weights/")}
        torch.save({"state": weights, "losses": found}, f"{folder}/result.pt")
    dist.destroy_process_group()


AUGMENTED = {"training.augment": {"probability": 0.5}}


@pytest.mark.parametrize(
    ("world_size", "backend", "config", "changed"),
    [
        (2, "", "G", DROPPING),
        pytest.param(3, "", "G", DROPPING, marks=pytest.mark.slow),
        pytest.param(2, "aot_eager", "G", DROPPING, marks=pytest.mark.slow),
        pytest.param(2, "broken in one", "G", DROPPING, marks=pytest.mark.slow),
        pytest.param(2, "", "C", {**AUGMENTED, "training.optimizer": "adamw", "training.weight_decay": 0.1}, marks=pytest.mark.slow),
        pytest.param(2, "", "C", {**AUGMENTED, "training.optimizer": "muon"}, marks=pytest.mark.slow),
    ],
    ids=["two", "three", "compiled", "compiled in one", "adamw", "muon"],
)
def test_several_processes_agree_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, backend: str, config: str, changed: dict[str, Any]
) -> None:
    """40 images in batches of 16, 16 and 8: the shares are unequal."""
    arguments = [(rank, world_size, str(tmp_path), backend, config, changed) for rank in range(world_size)]
    started = [processes().Process(target=_process, args=each) for each in arguments]
    for process in started:
        process.start()
    _orthogonalise_exactly(monkeypatch)
    alone = Trainer(settings(config, **changed), PixelScale(), IMAGES)
    expected, one = losses(alone, STEPS), alone.state()
    for process in started:
        process.join(120)
    assert [process.exitcode for process in started] == [0] * world_size
    together = torch.load(tmp_path / "result.pt", weights_only=True)
    assert together["losses"] == pytest.approx(expected, rel=1e-4)
    for name, value in together["state"].items():
        torch.testing.assert_close(value, one[name], atol=1e-4, rtol=1e-4)


@given(st.integers(1, 70), st.integers(1, 9), st.none() | st.integers(1, 20))
def test_however_a_batch_is_cut_every_image_counts_once(total: int, world_size: int, micro_batch: int | None) -> None:
    each = torch.arange(total)
    counted: list[int] = []
    for rank in range(world_size):
        parts, weight = Batch(each, each, each, each, each).share(rank, world_size, micro_batch)
        assert parts  # a process without images takes part in the reduction too
        assert weight in (0.0, 1 / total)
        assert all(len(part.sigma) <= (micro_batch or total) for part in parts)
        counted += [int(image) for part in parts if weight for image in part.images]
    assert counted == each.tolist()


def test_a_step_without_finite_gradients_changes_no_weight_and_is_counted() -> None:
    trainer = Trainer(settings("C"), PixelScale(), IMAGES)
    trained(trainer, 2)
    before = {k: v.clone() for k, v in trainer.denoiser.state_dict().items()}
    moments = trainer.state()
    hook = trainer.denoiser.network.stem.weight.register_hook(lambda gradient: gradient * float("nan"))
    trained(trainer, 1)
    hook.remove()
    assert all(torch.equal(v, before[k]) for k, v in trainer.denoiser.state_dict().items())
    assert all(torch.equal(v, moments[k]) for k, v in trainer.state().items() if k.startswith("adam/"))
    assert trainer.close_window()["nonfinite"] == 1


def test_the_curve_has_the_relative_size_of_its_last_step() -> None:
    trainer = Trainer(settings("C"), PixelScale(), IMAGES)
    trained(trainer, 2)
    assert not trainer.at_window_end
    before = torch.cat([p.detach().flatten() for p in trainer.parameters.values() if p.ndim > 1])
    trained(trainer, 1)
    assert trainer.at_window_end
    after = torch.cat([p.detach().flatten() for p in trainer.parameters.values() if p.ndim > 1])
    row = trainer.close_window()
    assert row["relative_update"] == pytest.approx(float((after - before).norm() / before.norm()), rel=1e-4)
    assert 0 < row["relative_update"] < 1
    trained(trainer, 1)
    assert "relative_update" not in trainer.close_window()  # a row in between, which the loop never asks for


def test_a_training_that_has_diverged_ends_with_advice() -> None:
    trainer = Trainer(settings("C"), PixelScale(), IMAGES)
    trainer.denoiser.network.stem.weight.register_hook(lambda gradient: gradient * float("inf"))
    trained(trainer, 12)
    with pytest.raises(EdmError, match="diverged") as caught:
        trainer.close_window()
    assert "training.lr" in caught.value.do_next


def test_the_loss_falls() -> None:
    trainer = Trainer(settings(), PixelScale(), IMAGES)
    trained(trainer, 3)
    first = trainer.close_window()["loss"]
    trained(trainer, 30)
    assert trainer.close_window()["loss"] < first


@given(st.integers(0, 2**40), st.integers(0, 5000), st.integers(1, 200))
def test_an_epoch_shows_every_image_once(seed: int, epoch: int, count: int) -> None:
    order = epoch_order(seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_order(seed, epoch, count))


def test_the_learning_rate_warms_up_then_falls_with_the_root_of_the_epoch() -> None:
    training = TrainingSettings(epochs=2000, batch=512, lr=0.02, warmup_epochs=200, t_ref_epochs=400)
    assert learning_rate(training, 0) == pytest.approx(0.02 / 200)
    assert learning_rate(training, 199) == pytest.approx(0.02)
    assert learning_rate(training, 400) == pytest.approx(0.02)
    assert learning_rate(training, 1600) == pytest.approx(0.01)
    constant = training.model_copy(update={"t_ref_epochs": None})
    assert learning_rate(constant, 1999) == 0.02


@given(st.integers(0, 300), st.none() | st.floats(0.1, 500), st.booleans(), st.floats(0, 3000), st.floats(0, 3000))
def test_the_learning_rate_never_exceeds_its_own_and_falls_after_the_warm_up(
    warmup: int, t_ref: float | None, by_step: bool, one: float, other: float
) -> None:
    changes = "every_step" if by_step else "every_epoch"
    training = TrainingSettings(epochs=1, batch=1, lr=0.5, warmup_epochs=warmup, t_ref_epochs=t_ref, lr_changes=changes)
    early, late = sorted((one, other))
    assert 0 <= learning_rate(training, early) <= 0.5
    assert learning_rate(training, warmup + early) >= learning_rate(training, warmup + late)


def test_the_papers_learning_rate_follows_every_image() -> None:
    training = TrainingSettings(epochs=2000, batch=512, lr=0.01, warmup_epochs=200, t_ref_epochs=400, lr_changes="every_step")
    assert learning_rate(training, 0) == 0
    assert learning_rate(training, 0.5) == pytest.approx(0.01 / 400)
    assert learning_rate(training, 300.5) == pytest.approx(0.01)
    assert learning_rate(training, 900.5) == pytest.approx(0.01 * (400 / 900.5) ** 0.5)
    assert learning_rate(training.model_copy(update={"warmup_epochs": 0.0}), 0) == pytest.approx(0.01)


def test_the_optimiser_follows_the_schedule_within_an_epoch_where_asked() -> None:
    """40 images in batches of 16, 16 and 8; 2 epochs of warm-up."""
    rates: dict[str, list[float]] = {"every_epoch": [], "every_step": []}
    for changes, seen in rates.items():
        trainer = Trainer(
            settings(**{"training.lr": 0.01, "training.warmup_epochs": 2, "training.lr_changes": changes}), PixelScale(), IMAGES
        )
        for _ in range(4):
            trained(trainer, 1)
            seen.append(trainer.optimizer.param_groups[0]["lr"])
        assert trainer.close_window()["lr"] == seen[-1]
    assert rates["every_epoch"] == pytest.approx([0.005, 0.005, 0.005, 0.01])
    assert rates["every_step"] == pytest.approx([0.01 * images / 80 for images in (0, 16, 32, 40)])


def test_a_summed_loss_has_larger_gradients_and_the_same_curve() -> None:
    """Adam with its epsilon far below either divides the factor out again."""
    mean, total = (
        Trainer(settings(**{"training.loss_reduction": reduction, "training.micro_batch": 5}), PixelScale(), IMAGES)
        for reduction in ("mean", "sum")
    )
    weights = trained(mean, 1), trained(total, 1)
    gradients = [trainer.denoiser.network.stem.weight.grad for trainer in (mean, total)]
    torch.testing.assert_close(gradients[1], gradients[0] * 64)
    assert total.close_window()["loss"] == pytest.approx(mean.close_window()["loss"], rel=1e-5)
    torch.testing.assert_close(weights[1]["weights/network.stem.weight"], weights[0]["weights/network.stem.weight"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("reduction", "scaled"), [("mean", True), ("sum", False)])
def test_half_precision_scales_its_loss_unless_the_sum_does(reduction: str, scaled: bool) -> None:
    trainer = Trainer(settings(**{"training.precision": "fp16", "training.loss_reduction": reduction}), PixelScale(), IMAGES)
    assert trainer.scaler.is_enabled() is scaled


def test_without_a_fixed_ema_only_power_averages_are_kept() -> None:
    changed = {"training.ema_beta": None, "sample.ema": ["0.050"], "probe.ema": "0.050"}
    trainer = Trainer(settings(**changed), PixelScale(), IMAGES)
    state = trained(trainer, 2)
    assert list(trainer.averages) == ["0.050", "0.100"]
    assert not any(name.startswith("average/fixed") for name in state)


def test_labels_stay_with_their_images_and_reach_the_network() -> None:
    labels = torch.arange(40) % 10
    trainer = Trainer(settings("C", **{"network.classes": 10}), PixelScale(), IMAGES, labels=labels)
    batch = trainer.batches.after(trainer.steps)
    index = epoch_order(3, 0, 40)[:16]
    assert torch.equal(batch.labels, labels[index])
    assert torch.equal(batch.part(3, 5).labels, labels[index][3:5])
    trained(trainer, 1)
    gradient = trainer.denoiser.network.embedding.label.weight.grad
    assert gradient.abs().sum(dim=0).ne(0).tolist() == [c in labels[index] for c in range(10)]


def test_a_share_of_the_images_is_seen_without_its_class_and_the_step_decides_which() -> None:
    labels = torch.arange(40) % 10
    dropping = {"network.classes": 10, "training.label_dropout": 0.5}
    trainer = Trainer(settings("C", **dropping), PixelScale(), IMAGES, labels=labels)
    batches = [trainer.batches.after(step).labels for step in range(20)]
    dropped = torch.cat([batch == 10 for batch in batches])
    assert 0.35 < dropped.double().mean().item() < 0.65
    index = epoch_order(3, 0, 40)[:16]
    assert torch.equal(batches[0][batches[0] != 10], labels[index][batches[0] != 10])
    again = Trainer(settings("C", **dropping), PixelScale(), IMAGES, labels=labels).batches.after(3)
    assert torch.equal(again.labels, batches[3])
    plain = Trainer(settings("C", **{"network.classes": 10}), PixelScale(), IMAGES, labels=labels).batches.after(3)
    assert torch.equal(again.noise, plain.noise)
    assert torch.equal(again.sigma, plain.sigma)


def test_an_unconditional_network_trains_the_same_with_labels_beside_its_images() -> None:
    with_labels = Trainer(settings(), PixelScale(), IMAGES, labels=torch.arange(40))
    assert same_bits(trained(with_labels, 2), trained(Trainer(settings(), PixelScale(), IMAGES), 2))


def test_the_numbers_of_a_training_are_what_they_were() -> None:
    """If this fails on purpose, raise the version of the stage `snapshot`: what users have stored was trained otherwise."""
    trainer = Trainer(settings(**{"training.flip": True}), PixelScale(), IMAGES)
    assert epoch_order(3, 0, 40)[:4].tolist() == GOLDEN["order"]
    torch.testing.assert_close(trainer.batches.after(trainer.steps).sigma[:3], torch.tensor(GOLDEN["sigma"]), rtol=1e-5, atol=0)
    trained(trainer, 3)
    assert trainer.close_window()["loss"] == pytest.approx(GOLDEN["loss"], rel=1e-4)
