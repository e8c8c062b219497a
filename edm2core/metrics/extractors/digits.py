"""The demo's feature extractor: a small classifier of scikit-learn's 8x8 digits. Its Fréchet distance is never called FID."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edm2core.data.prepared import Prepared
from edm2core.errors import InputError
from edm2core.keyed_random import seed_of

SIDE, CLASSES = 8, 10
SEED, EPOCHS, BATCH, LEARNING_RATE = 0, 30, 64, 8e-3


class DigitsFeatures(FeatureExtractorBase):  # type: ignore[misc]  # the library has no types
    """Pooled activations before the classifier's last layer: uint8 [N, 1, 8, 8] → ([N, 64],), float32.

    There are 64, so that a covariance of a few hundred images has full rank. SiLU keeps any of them from being constant.
    """

    NAME, LAYER, DIMENSIONS, CHANNELS = "digits", "64", 64, 1

    def __init__(self) -> None:
        super().__init__(self.NAME, [self.LAYER])
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.SiLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.SiLU(),
        )
        self.classifier = nn.Linear(self.DIMENSIONS, CLASSES)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (DigitsFeatures.LAYER,)

    def forward(self, input: Tensor) -> tuple[Tensor]:
        if input.dtype != torch.uint8 or input.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"wants uint8 [N, 1, {SIDE}, {SIDE}], not {input.dtype} {list(input.shape)}")
        y: Tensor = self.convolutions(input.float() / 127.5 - 1)
        return (y.mean(dim=(2, 3)),)

    def classify(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of images uint8 [N, 1, 8, 8]."""
        logits: Tensor = self.classifier(self(images)[0])
        return logits


def build(weights: dict[str, Tensor]) -> DigitsFeatures:
    """The classifier with these weights; raises RuntimeError if they are of another network."""
    module = DigitsFeatures()
    module.load_state_dict(weights)
    return module


def fit(data: Prepared, title: str) -> tuple[DigitsFeatures, dict[str, Any]]:
    """The classifier of the training images, and its accuracy on the test images. Raises InputError for data other than digits."""
    shape = data.train_images.shape[1:]
    if shape != (1, SIDE, SIDE) or len(data.classes) != CLASSES:
        unfit = f"The digits features are for {CLASSES} classes of 1x{SIDE}x{SIDE} images, not {len(data.classes)} of {shape}."
        raise InputError(unfit, where=title, do_next="Ask for metrics in other features, such as `fid`.")
    module = train_digits(data.train_images, data.train_labels)
    test_accuracy = round(accuracy(module, data.test_images, data.test_labels), 2) if len(data.test_images) else None
    return module, {"test_accuracy": test_accuracy}


def train_digits(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> DigitsFeatures:
    """A classifier of these images, uint8 [N, 1, 8, 8]: seconds on one core, the same weights every time on one kind of machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # how sums are split among threads would change the rounding
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(SEED, "init"))
            return _train(DigitsFeatures(), torch.tensor(images), torch.tensor(labels))
    finally:
        torch.set_num_threads(threads)


def _train(module: DigitsFeatures, images: Tensor, labels: Tensor) -> DigitsFeatures:
    steps = -(-len(images) // BATCH) * EPOCHS
    optimizer = torch.optim.Adam(module.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    module.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for begin in range(0, len(images), BATCH):
            index = order[begin : begin + BATCH]
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(F.cross_entropy(module.classify(images[index]), labels[index]))
            optimizer.step()
            schedule.step()
    module.eval().requires_grad_(False)
    return module


def accuracy(module: DigitsFeatures, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """The percentage of these images that the classifier gets right."""
    return float((module.classify(torch.tensor(images)).argmax(1) == torch.tensor(labels)).float().mean()) * 100
