"""DINOv2's vision transformer, from a local file of its authors' weights (Oquab et al., arXiv 2304.07193).

torch-fidelity's loads code and weights from the network, and resizes as TensorFlow did.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edm2core.registry import EXTRACTORS

SIDE, PATCH, HEAD = 224, 14, 64
OFFSET = 0.1  # added by the authors to a grid's side when positions are resized; it shifts the bicubic weights a little
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DinoV2(FeatureExtractorBase):  # type: ignore[misc]  # the library has no types
    """The normalised class token: uint8 [N, 3, H, W] → ([N, width],), float32; width and depth follow from the weights.

    Images are brought to 224 x 224 by bicubic interpolation with antialiasing, as EDM2's FD with DINOv2 has them.
    """

    def __init__(self, name: str, features_list: list[str], weights: dict[str, Tensor]) -> None:
        """Raises RuntimeError or KeyError where the weights are not DINOv2's names and shapes (ViT-S, B or L, without registers)."""
        super().__init__(name, features_list)
        width, depth = weights["cls_token"].shape[-1], sum(name.endswith(".ls1.gamma") for name in weights)
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(weights["pos_embed"].shape))
        self.mask_token = nn.Parameter(torch.empty(1, width))  # used in training alone
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.load_state_dict(weights)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("cls",)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        if images.dtype != torch.uint8 or images.shape[1] != 3:
            raise ValueError(f"wants uint8 [N, 3, H, W], not {images.dtype} {list(images.shape)}")
        x = F.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True) / 255
        x = (x - x.new_tensor(MEAN)[:, None, None]) / x.new_tensor(DEVIATION)[:, None, None]
        patches = self.patch_embed["proj"](x)
        x = patches.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self._positions(patches.shape[-1])
        for block in self.blocks:
            x = block(x)
        return (cast(Tensor, self.norm(x)[:, 0]),)

    def _positions(self, side: int) -> Tensor:
        """The learned positions of a square grid, brought to another."""
        cls, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        learned = math.isqrt(grid.shape[1])
        if learned == side:
            return self.pos_embed
        grid = grid.reshape(1, learned, learned, -1).permute(0, 3, 1, 2)
        scale = (side + OFFSET) / learned
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([cls, grid.flatten(2).transpose(1, 2)], 1)


def build(weights: dict[str, Tensor]) -> DinoV2:
    """DINOv2's ViT-L/14, which published distances are in; raises RuntimeError or KeyError if these are not its weights."""
    facts = EXTRACTORS["dinov2"]
    module = DinoV2(facts.library_name, [facts.layer], weights)
    if module.cls_token.shape[-1] != facts.dimensions:
        raise RuntimeError(f"it is {module.cls_token.shape[-1]} wide, not {facts.dimensions}")
    return module


class _Block(nn.Module):
    """Pre-norm transformer block with a learned scale on both branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1 = nn.ParameterDict({"gamma": torch.empty(width)})
        self.ls2 = nn.ParameterDict({"gamma": torch.empty(width)})

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.attn["qkv"](self.norm1(x)).reshape(n, tokens, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.ls1["gamma"] * self.attn["proj"](attended)
        x = x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return x
