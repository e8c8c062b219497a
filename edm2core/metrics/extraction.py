"""Feature extractors as the store holds them: `extractor.json` says which one, `extractor.safetensors` has its weights."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edm2core.data.split import blocks_of
from edm2core.errors import InputError, IntegrityError
from edm2core.registry import EXTRACTORS, load

WEIGHTS, INFO = "extractor.safetensors", "extractor.json"
IMAGES_AT_ONCE = {"cuda": 256, "cpu": 64}


@dataclass(frozen=True)
class ExtractorInfo:
    """An extractor's names, and how many features it gives an image."""

    name: str  # as in settings and in names of metrics
    library_name: str  # in torch-fidelity's registry
    layer: str
    dimensions: int

    def write(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """Store it with its weights in a folder."""
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        (folder / INFO).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


INFOS = {name: ExtractorInfo(name, facts.library_name, facts.layer, facts.dimensions) for name, facts in EXTRACTORS.items()}
BUILD = {name: load(facts.build) for name, facts in EXTRACTORS.items()}
"""Loaded with this module: the code of a running process does not change under it."""


def load_extractor(folder: Path) -> tuple[ExtractorInfo, FeatureExtractorBase]:
    """The extractor in a folder, in eval mode; uint8 [N, C, H, W] → a tuple of one float32 [N, dimensions].

    Raises IntegrityError for a damaged extractor, and for one that this version does not know.
    """
    try:
        info = ExtractorInfo(**json.loads((folder / INFO).read_text(encoding="utf-8")))
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        if info != INFOS.get(info.name):
            raise ValueError(f"unknown extractor {info.name!r} with layer {info.layer!r}")
        module: FeatureExtractorBase = BUILD[info.name](weights)
        return info, module.eval().requires_grad_(False)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        damaged = f"This is no feature extractor: {error}"
        raise IntegrityError(damaged, where=str(folder), do_next="Make it again: delete its result.") from error


def extract(
    module: FeatureExtractorBase,
    shards: Iterable[NDArray[np.uint8]],
    device: torch.device,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Features [N, dimensions] of images uint8 [n, C, H, W] given in pieces; `progress` is told how many images are done.

    Grey images become RGB for an extractor of colour images. Raises InputError for images of a shape that it does not take.
    """
    module = module.to(device)
    parts: list[NDArray[np.float32]] = []
    # without TF32, since features are compared across machines
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for block in (block for shard in shards for block in blocks_of(shard, IMAGES_AT_ONCE[device.type])):
            images = torch.tensor(block).to(device)
            if images.shape[1] == 1 and getattr(module, "CHANNELS", 3) == 3:
                images = images.expand(-1, 3, -1, -1)
            try:
                (features,) = module(images)
            except ValueError as error:  # torch-fidelity's error for a shape that does not fit
                raise InputError(f"The images do not suit the {module.get_name()} features: {error}") from error
            parts.append(features.cpu().numpy())
            progress(sum(map(len, parts)))
    if not parts:
        raise InputError("There are no images to take features of.")
    return np.concatenate(parts)
