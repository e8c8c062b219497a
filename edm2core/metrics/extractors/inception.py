"""FID's Inception-v3 from torch-fidelity, the same behind pytorch-fid's resize, and the Inception score."""

import io
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

from edm2core.metrics.compared import Compared, Value
from edm2core.registry import EXTRACTORS

SPLITS = 10  # of the samples; the Inception score is the mean of their scores


class PytorchFid(FeatureExtractorInceptionV3):  # type: ignore[misc]  # the library has no types
    """The same network behind pytorch-fid's resize: bilinear between centres of pixels, and values in [-1, 1]."""

    def forward(self, images: Tensor) -> tuple[Tensor]:
        if images.dtype != torch.uint8 or images.shape[1] != 3:
            raise ValueError(f"wants uint8 [N, 3, H, W], not {images.dtype} {list(images.shape)}")
        x = 2 * F.interpolate(images.float() / 255, (self.INPUT_IMAGE_SIZE,) * 2, mode="bilinear", align_corners=False) - 1
        for name, layer in self.named_children():  # in the order they run
            if name != "fc":
                x = layer(x)
        return (x.flatten(1),)


def build(weights: dict[str, Tensor], kind: type[FeatureExtractorInceptionV3] = FeatureExtractorInceptionV3) -> FeatureExtractorBase:
    """torch-fidelity's Inception with these weights; raises RuntimeError if their names or shapes are others."""
    # the constructor unpickles its file without checks, so it gets one that is written here from bare tensors
    file = io.BytesIO()
    torch.save(weights, file)
    file.seek(0)
    facts = EXTRACTORS["inception"]
    return kind(facts.library_name, [facts.layer], feature_extractor_weights_path=file)


build_pytorch_fid = partial(build, kind=PytorchFid)


def class_logits(module: FeatureExtractorBase, features: NDArray[np.float32]) -> Tensor:
    """Inception's logits [N, 1008] without bias from its features [N, 2048]: the Inception score is computed from them."""
    weight: Tensor = module.fc.weight.cpu()
    return torch.from_numpy(features) @ weight.T


def score(compared: Compared) -> dict[str, Value]:
    """Salimans et al., arXiv 1606.03498, section 4: a mean over tenths of the samples, shuffled.

    The standard error divides by n - 1; torch-fidelity's deviation, from which it is taken, divides by n.
    """
    if compared.logits is None:
        raise ValueError("the Inception score needs an extractor that classifies")
    library = isc_features_to_metric(compared.logits(), SPLITS)
    return {"is": Value(library[KEY_METRIC_ISC_MEAN], library[KEY_METRIC_ISC_STD] / np.sqrt(SPLITS - 1))}
