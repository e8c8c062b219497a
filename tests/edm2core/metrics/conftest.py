"""Inception with random weights, so that no test downloads any; the digits features as torch-fidelity's commands take them."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.registry import register_feature_extractor

from edm2core.metrics.extractors.digits import SIDE, DigitsFeatures


class RegisteredDigits(DigitsFeatures):
    """With what torch-fidelity's registry asks for."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return DigitsFeatures.LAYER

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 1, SIDE, SIDE, dtype=torch.uint8)


register_feature_extractor(DigitsFeatures.NAME, RegisteredDigits)


def blobs(n: int, seed: int, contrast: float = 1.0) -> np.ndarray:
    """Colour images of smooth random patches, uint8 [n, 3, 32, 32]: white noise would look all the same to the network."""
    coarse = torch.tensor(np.random.default_rng(seed).random((n, 3, 5, 5)), dtype=torch.float32)
    images: np.ndarray = (
        ((F.interpolate(coarse, (32, 32), mode="bicubic") - 0.5) * contrast * 255 + 128).clamp(0, 255).to(torch.uint8).numpy()
    )
    return images


@pytest.fixture(scope="session", name="blobs")
def _blobs() -> Callable[..., np.ndarray]:
    return blobs


@pytest.fixture(scope="session")
def inception_weights() -> dict[str, Tensor]:
    """Random weights whose normalisations were fitted to images, else nothing of an image would come through."""
    torch.manual_seed(0)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as during:
        during.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        module(torch.from_numpy(blobs(32, 0)))
    weights: dict[str, Tensor] = module.eval().state_dict()
    return weights
