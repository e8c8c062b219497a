"""Features for small sets of any images, without a download or class names: colours, layout, contrast and texture by fixed filters.

Their Fréchet distance is never called FID. It notices blur, noise, colour casts, lost contrast and lost variety, and not what is depicted.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edm2core.data.prepared import Prepared
from edm2core.data.split import blocks_of

OCTAVES = 3
GRID, COLOUR_GRID = 4, 2  # cells a side of the layout: of luma, and of the two colour differences
FLOOR = 1e-5  # added to energies before their logarithm: about that of rounding to 8 bits
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
FILTERS = (  # horizontal, vertical and both diagonal derivatives (Scharr's), and the Laplacian
    ((-3, 0, 3), (-10, 0, 10), (-3, 0, 3)),
    ((-3, -10, -3), (0, 0, 0), (3, 10, 3)),
    ((0, 3, 10), (-3, 0, 3), (-10, -3, 0)),
    ((10, 3, 0), (3, 0, -3), (0, -3, -10)),
    ((-4, -8, -4), (-8, 48, -8), (-4, -8, -4)),
)


class FilterFeatures(FeatureExtractorBase):  # type: ignore[misc]  # the library has no types
    """uint8 [N, 3, H, W] → ([N, 54],), float32: each in deviations of the training images from their mean.

    Layout: the luma in 4 x 4 cells, two colour differences in 2 x 2. Contrast: the log variance of each of the three. Texture, at three
    scales: the log energy of five filters on luma and of one on the colours, the spread of the Laplacian's energy over the image's
    quarters, and its sparsity.
    """

    NAME, LAYER = "filters", "all"
    DIMENSIONS = GRID**2 + 2 * COLOUR_GRID**2 + 3 + OCTAVES * (len(FILTERS) + 4)

    def __init__(self) -> None:
        super().__init__(self.NAME, [self.LAYER])
        self.register_buffer("mean", torch.zeros(self.DIMENSIONS))
        self.register_buffer("deviation", torch.ones(self.DIMENSIONS))
        self.register_buffer("filters", torch.tensor(FILTERS, dtype=torch.float32)[:, None] / 32, persistent=False)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (FilterFeatures.LAYER,)

    def forward(self, input: Tensor) -> tuple[Tensor]:
        if input.dtype != torch.uint8 or input.shape[1] != 3:
            raise ValueError(f"wants uint8 [N, 3, H, W], not {input.dtype} {list(input.shape)}")
        return ((self.responses(input) - self.mean) / self.deviation,)

    def responses(self, images: Tensor) -> Tensor:
        """The features [N, 54] as they are, of images uint8 [N, 3, H, W]."""
        red, green, blue = (images.float() / 255).unbind(1)
        luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
        planes = torch.stack([luma, (red - green) / math.sqrt(2), (red + green - 2 * blue) / math.sqrt(6)], 1)
        parts = [F.adaptive_avg_pool2d(planes[:, :1], GRID), F.adaptive_avg_pool2d(planes[:, 1:], COLOUR_GRID)]
        parts += [_log(planes.var((2, 3), correction=0))]
        for _ in range(OCTAVES):
            parts += self._texture(planes)
            planes = F.avg_pool2d(planes, 2, ceil_mode=True) if min(planes.shape[2:]) > 1 else planes
        return torch.cat([part.flatten(1) for part in parts], 1)

    def _texture(self, planes: Tensor) -> list[Tensor]:
        padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
        luma = F.conv2d(padded[:, :1], self.filters)
        colours = F.conv2d(padded[:, 1:], self.filters[-1:].expand(2, -1, -1, -1), groups=2)
        edges = luma[:, -1:]
        quarters = _log(F.adaptive_avg_pool2d(edges.square(), 2)).flatten(1)
        sparse = _log(edges.square().mean((2, 3))) - 2 * _log(edges.abs().mean((2, 3)))
        energies = [_log(responses.square().mean((2, 3))) for responses in (luma, colours)]
        return [*energies, quarters.std(1, correction=0, keepdim=True), sparse]


def _log(energies: Tensor) -> Tensor:
    return (energies + FLOOR).log()


def build(weights: dict[str, Tensor]) -> FilterFeatures:
    """The extractor with these means and deviations; raises RuntimeError if they are of another extractor."""
    module = FilterFeatures()
    module.load_state_dict(weights)
    return module


def fit(data: Prepared, _: str) -> tuple[FilterFeatures, dict[str, Any]]:
    """The extractor scaled to the training images."""
    return fit_filters(data.train_images), {}


def fit_filters(images: NDArray[np.uint8]) -> FilterFeatures:
    """The extractor whose features have mean 0 and deviation 1 over images uint8 [N, 1 or 3, H, W]; constant ones are only shifted."""
    module = FilterFeatures()
    with torch.inference_mode():
        batches = map(torch.tensor, blocks_of(images, 256))
        responses = torch.cat([module.responses(batch.expand(-1, 3, -1, -1)) for batch in batches]).double()
    deviation = responses.std(0, correction=0)
    module.mean.copy_(responses.mean(0))
    module.deviation.copy_(torch.where(deviation > 1e-4, deviation, 1.0))
    module.eval().requires_grad_(False)
    return module
