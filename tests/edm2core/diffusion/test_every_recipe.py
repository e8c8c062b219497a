"""Each published recipe's whole path, its network and batch made tiny: planned, trained some steps, sampled and probed as it says."""

from pathlib import Path

import pytest
import torch

from edm2core.config import Recipe, load_recipe, recipe_names
from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.trainer import Trainer
from edm2core.diffusion.training_state import averaged_weights
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.probe.cells import cells_of, denoiser_features
from edm2core.probe.features import Data, Fresh, Labelled
from edm2core.probe.heads import Heads
from edm2core.snapshots import files as snapshot
from edm2core.stages.sample import draw_images

TINY = {
    "network.resolution": 8,
    "network.channels": 32,
    "network.multipliers": [1, 2],
    "network.blocks": 2,
    "network.attention_resolutions": [4],
    "training.batch": 4,
    "training.warmup_epochs": 1,
    "training.precision": "fp32",
    "sample.steps": 2,
    "probe.blocks": ["out_3"],
    "probe.batch": 4,
}


def tiny(name: str) -> Recipe:
    heads = load_recipe(name).network.attention_head_channels
    return load_recipe(name, TINY | ({"network.attention_head_channels": 32} if heads else {}))


# Every rung of the paper's ladder and what the demo trains. The others differ in data set, size and schedule: make test-all.
FAST = ("digits/C", "digits/E", "digits/G", *(f"paper/cifar10/{rung}" for rung in "ABCDEFG"))


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in recipe_names()])
def test_it_trains_samples_and_is_probed(name: str, tmp_path: Path) -> None:
    recipe = tiny(name)
    shape = (recipe.network.image_channels, 8, 8)
    images = torch.randint(0, 256, (10, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    labels = torch.arange(10) % recipe.network.classes if recipe.network.classes else None
    trainer = Trainer(settings, PixelScale(), images, labels=labels)
    before = {key: parameter.detach().clone() for key, parameter in trainer.parameters.items()}
    for _ in range(4):
        trainer.step()
    row = trainer.close_window()
    assert row["nonfinite"] == 0
    assert 0 < row["loss"] < 20
    assert [key for key, parameter in trainer.parameters.items() if torch.equal(before[key], parameter)] == []

    snapshot.save(tmp_path, {ema: averaged_weights(trainer.state(), ema) for ema in trainer.averages}, settings, PixelScale(), epoch=1)
    for ema in recipe.sample.ema:
        drawn = draw_images(snapshot.load(tmp_path, ema), recipe.sample, 0, range(3))
        assert drawn.shape == (3, *shape)
        assert drawn.std() > 0

    denoiser = snapshot.load(tmp_path, recipe.probe.ema)
    cells = cells_of(recipe.probe, denoiser.network.block_names)
    labelled = Labelled(images, torch.arange(10) % 2)
    data = Data(labelled, labelled, PixelScale(), 2)
    source = Fresh(lambda wanted: denoiser_features(denoiser, wanted), cells, recipe.probe, data)
    heads = Heads(source.widths, cells, 2, recipe.probe, data.device)
    assert 0 < heads.train_epoch(source.batches(cells, torch.arange(10), 0, 0, 4))[cells[0]] < 5


def test_all_are_planned_beside_each_other_and_no_two_trainings_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(f"name: all\nrecipes: [{', '.join(recipe_names())}]\nepochs: [1]\nmetrics: []\n")
    experiment = load_experiment(tmp_path / "e.yaml")
    tasks = plan(experiment, {f"data:{recipe.name}": recipe.data.digest or "builtin:digits" for recipe in experiment.recipes})
    snapshots = {task.subject.recipe: task for task in tasks if task.stage == "snapshot"}
    assert list(snapshots) == recipe_names()
    assert len({task.key for task in snapshots.values()}) == len(snapshots)
    assert snapshots["paper/cifar10/G"].title == "paper/cifar10/G · seed 0 · train to epoch 1"


def test_beside_others_of_its_data_set_a_recipe_is_called_by_what_tells_it_apart(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("name: two\nrecipes: [cifar10/G, paper/cifar10/G]\nepochs: [1]\nmetrics: []\nprobe: false\n")
    experiment = load_experiment(tmp_path / "e.yaml")
    tasks = plan(experiment, {f"data:{recipe.name}": f"sha256:{0:064x}" for recipe in experiment.recipes})
    assert [task.title for task in tasks if task.stage == "snapshot"] == [
        "G · seed 0 · train to epoch 1",
        "paper/G · seed 0 · train to epoch 1",
    ]


def test_a_conditional_recipe_samples_other_images_of_other_classes(tmp_path: Path) -> None:
    recipe = load_recipe("paper/digits/C", TINY | {"network.attention_head_channels": 32, "network.classes": 10})
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=recipe.training, seed=0)
    trainer = Trainer(settings, PixelScale(), images, labels=torch.arange(10))
    for _ in range(3):
        trainer.step()
    snapshot.save(tmp_path, {"0.050": averaged_weights(trainer.state(), "0.050")}, settings, PixelScale(), epoch=1)
    denoiser = snapshot.load(tmp_path, "0.050")
    drawn = draw_images(denoiser, recipe.sample, 0, range(4))
    denoiser.network.embedding.label.weight.zero_()
    assert (draw_images(denoiser, recipe.sample, 0, range(4)) != drawn).any()
