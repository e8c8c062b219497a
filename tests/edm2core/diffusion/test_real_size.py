"""The published CIFAR-10 networks at their real size, a few images at a time."""

import numpy as np
import pytest
import torch

from edm2core.config import load_recipe
from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.trainer import Trainer
from edm2core.probe.cells import cells_of, denoiser_features
from edm2core.probe.features import Data, Fresh, Labelled
from edm2core.probe.heads import Heads
from edm2core.stages.sample import draw_images


@pytest.mark.slow
@pytest.mark.parametrize("config", ["C", "E", "G"])
def test_each_takes_a_training_step_samples_and_is_probed(config: str) -> None:
    recipe = load_recipe(f"cifar10/{config}")
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    training = recipe.training.model_copy(update={"batch": 4, "precision": "fp32"})
    trainer = Trainer(
        TrajectorySettings(network=recipe.network, diffusion=recipe.diffusion, training=training, seed=0), PixelScale(), images
    )
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    trainer.step()
    assert float(trainer.window.nonfinite) == 0
    assert sum(not torch.equal(before[name], parameter) for name, parameter in trainer.parameters.items()) > len(before) / 2

    denoiser = trainer.denoiser.eval().requires_grad_(False)
    drawn = draw_images(denoiser, recipe.sample.model_copy(update={"steps": 2}), 0, range(2))
    assert drawn.shape == (2, 3, 32, 32)
    assert drawn.dtype == np.uint8
    assert drawn.std() > 0

    cells = cells_of(recipe.probe, denoiser.network.block_names)
    labelled, index = Labelled(images, torch.arange(4)), torch.arange(4)
    data = Data(labelled, labelled, PixelScale(), 10)
    source = Fresh(lambda wanted: denoiser_features(denoiser, wanted), cells, recipe.probe, data)
    heads = Heads(source.widths, cells, 10, recipe.probe, data.device)
    assert heads.parameters[0][0].shape == (1, 10, 256)
    assert 1 < heads.train_epoch(source.batches(cells, index, 0, 0, 4))[cells[0]] < 5
    assert heads.best(source.look(cells, "test", index, 0), 5)[cells[0]].shape == (4, 5)
