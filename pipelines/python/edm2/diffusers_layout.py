"""The files that let diffusers load a snapshot: a pipeline and a model of one's own code, which need this package installed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from edm2core.diffusion.denoiser import Denoiser

MODEL = '''\
"""The denoiser of an EDM2 snapshot as a model of diffusers. It needs the package edm2."""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network


class EDM2Denoiser(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, network: dict, diffusion: dict, affine: dict) -> None:
        super().__init__()
        settings = NetworkSettings.model_validate(dict(network))
        self.denoiser = Denoiser(build_network(settings), DiffusionSettings.model_validate(dict(diffusion)), PixelScale(**affine))

    def forward(self, noised, sigma, labels=None):
        return self.denoiser(noised, sigma, labels)
'''
PIPELINE = '''\
"""Draws images as edm2 does. It needs the package edm2."""

from diffusers import DiffusionPipeline, ImagePipelineOutput
from edm2 import sample
from PIL import Image

SAMPLING = SETTINGS


class EDM2Pipeline(DiffusionPipeline):
    def __init__(self, denoiser) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser)

    def __call__(self, batch_size: int = 1, output_type: str = "pil", return_dict: bool = True, **sampling):
        """`batch_size` images; `sampling` are settings of edm2's sampler, such as seed and steps. `output_type` is pil or np (uint8)."""
        images = sample(self.denoiser.denoiser.float(), batch_size, **{**SAMPLING, **sampling})
        if output_type == "pil":
            images = [Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)) for image in images]
        return ImagePipelineOutput(images=images) if return_dict else (images,)
'''


def write(folder: Path, denoiser: Denoiser, description: Mapping[str, Any], sampling: Mapping[str, Any]) -> None:
    """Write the layout beside a snapshot's own files. `description` is its snapshot.json."""
    model = folder / "denoiser"
    model.mkdir()
    config = {"_class_name": "EDM2Denoiser", **{name: description[name] for name in ("network", "diffusion", "affine")}}
    (model / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (model / "modeling_edm2.py").write_text(MODEL, encoding="utf-8")
    weights = {f"denoiser.{name}": tensor.contiguous() for name, tensor in denoiser.state_dict().items()}
    save_file(weights, model / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    (folder / "pipeline.py").write_text(PIPELINE.replace("SETTINGS", repr(dict(sampling)), 1), encoding="utf-8")
    index = {"_class_name": ["pipeline", "EDM2Pipeline"], "denoiser": ["modeling_edm2", "EDM2Denoiser"]}
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
