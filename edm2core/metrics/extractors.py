"""Feature extractors as the store holds them: `extractor.json` says which one, `extractor.safetensors` has its weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from edm2core.errors import InputError, IntegrityError
from edm2core.metrics.digits import DigitsFeatures
from edm2core.metrics.dinov2 import DinoV2
from edm2core.metrics.filters import FilterFeatures

WEIGHTS, INFO = "extractor.safetensors", "extractor.json"
IMAGES_AT_ONCE = {"cuda": 256, "cpu": 64}


@dataclass(frozen=True)
class Extractor:
    """What an extractor is called and what it gives: `dimensions` float32 numbers an image."""

    name: str  # as in settings and in names of metrics
    library_name: str  # in torch-fidelity's registry
    layer: str
    dimensions: int

    def write(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Store it with its weights in a folder."""
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        (folder / INFO).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


INCEPTION = Extractor("inception", "inception-v3-compat", "2048", 2048)
PYTORCH_FID = Extractor("pytorch_fid", "inception-v3-compat behind pytorch-fid's resize", "2048", 2048)
DINOV2 = Extractor("dinov2", "dinov2_vitl14", "cls", 1024)
FILTERS = Extractor("filters", FilterFeatures.NAME, FilterFeatures.LAYER, FilterFeatures.DIMENSIONS)
DIGITS = Extractor("digits", DigitsFeatures.NAME, DigitsFeatures.LAYER, DigitsFeatures.DIMENSIONS)


def load_extractor(folder: Path) -> tuple[Extractor, FeatureExtractorBase]:
    """The extractor in a folder, in eval mode; uint8 [N, C, H, W] → a tuple of one float32 [N, dimensions].

    Raises IntegrityError where the folder holds none that this version knows.
    """
    try:
        info = Extractor(**json.loads((folder / INFO).read_text(encoding="utf-8")))
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        return info, _build(info, weights)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise IntegrityError(
            f"This is no feature extractor: {error}", where=str(folder), do_next="Make it again: delete its result."
        ) from error


def _build(info: Extractor, weights: dict[str, Tensor]) -> FeatureExtractorBase:
    if info == DIGITS:
        module: FeatureExtractorBase = DigitsFeatures(info.library_name, [info.layer])
        module.load_state_dict(weights)
    elif info == FILTERS:
        module = FilterFeatures(info.library_name, [info.layer])
        module.load_state_dict(weights)
    elif info in (INCEPTION, PYTORCH_FID):
        module = build_inception(weights, info)
    elif info == DINOV2:
        module = build_dinov2(weights)
    else:
        raise ValueError(f"unknown extractor {info.name!r} with layer {info.layer!r}")
    return module.eval().requires_grad_(False)


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


def build_inception(weights: dict[str, Tensor], info: Extractor = INCEPTION) -> FeatureExtractorBase:
    """torch-fidelity's Inception with these weights; raises RuntimeError if they are not its own names and shapes."""
    # its constructor unpickles whatever file it is given, so it is given one that was written here from bare tensors
    file = io.BytesIO()
    torch.save(weights, file)
    file.seek(0)
    kind = PytorchFid if info == PYTORCH_FID else FeatureExtractorInceptionV3
    return kind(INCEPTION.library_name, [info.layer], feature_extractor_weights_path=file)


def build_dinov2(weights: dict[str, Tensor]) -> FeatureExtractorBase:
    """DINOv2's ViT-L/14, which published distances are in; raises RuntimeError or KeyError if these are not its weights."""
    module = DinoV2(DINOV2.library_name, [DINOV2.layer], weights)
    if module.cls_token.shape[-1] != DINOV2.dimensions:
        raise RuntimeError(f"it is {module.cls_token.shape[-1]} wide, not {DINOV2.dimensions}")
    return module


def class_logits(module: FeatureExtractorBase, features: NDArray[np.float32]) -> Tensor:
    """Inception's logits [N, 1008] without bias, which the Inception score is of, from its features [N, 2048]."""
    weight: Tensor = module.fc.weight.cpu()
    return torch.from_numpy(features) @ weight.T


def extract(
    module: FeatureExtractorBase,
    shards: Iterable[NDArray[np.uint8]],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Features [N, dimensions] of images uint8 [n, C, H, W] given in pieces; `progress` is told how many images are done.

    Grey images become RGB for an extractor that wants colour. Raises InputError for images that it cannot take.
    """
    module = module.to(device)
    at_once = IMAGES_AT_ONCE[device.type]
    found: list[NDArray[np.float32]] = []
    done = 0
    # without TF32: the numbers are compared across machines
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for shard in shards:
            for begin in range(0, len(shard), at_once):
                images = torch.tensor(shard[begin : begin + at_once]).to(device)
                if images.shape[1] == 1 and not isinstance(module, DigitsFeatures):
                    images = images.expand(-1, 3, -1, -1)
                try:
                    (features,) = module(images)
                except ValueError as error:  # how torch-fidelity says that a shape does not fit
                    raise InputError(f"The images do not suit the {module.get_name()} features: {error}") from error
                found.append(features.cpu().numpy())
                done += len(images)
                if progress:
                    progress(done)
    if not found:
        raise InputError("There are no images to take features of.")
    return np.concatenate(found)
