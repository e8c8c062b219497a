"""A small diffusion transformer (DiT: arXiv 2212.09748), without anything of the project's U-Net."""

import math

import torch
from torch import nn


class Block(nn.Module):
    """Attention and a perceptron, each scaled and shifted by the embedding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 4 * width)

    def forward(self, x, embedding):
        scale1, shift1, scale2, shift2 = self.modulation(embedding)[:, None].chunk(4, dim=-1)
        y = self.norm1(x) * (1 + scale1) + shift1
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.perceptron(self.norm2(x) * (1 + scale2) + shift2)


class TinyDiT(nn.Module):
    """x [N, C, H, W], c_noise [N], labels [N] or None → [N, C, H, W]."""

    def __init__(self, image_channels, resolution, classes, *, depth: int = 6, width: int = 192, patch: int = 2, heads: int = 4):
        super().__init__()
        tokens = (resolution // patch) ** 2
        self.embed = nn.Conv2d(image_channels, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, tokens, width) * 0.02)
        self.label = nn.Embedding(classes + 1, width) if classes else None  # the last stands for any class
        self.noise = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.head = nn.ConvTranspose2d(width, image_channels, patch, patch)
        self.feature_blocks = {f"block_{number}": block for number, block in enumerate(self.blocks, 1)}  # what the probe may look at

    def forward(self, x, c_noise, labels=None):
        frequencies = torch.exp(torch.linspace(0, math.log(100), 32, device=x.device))
        angles = c_noise[:, None] * frequencies
        embedding = self.noise(torch.cat([angles.sin(), angles.cos()], dim=1))
        if self.label is not None and labels is not None:
            embedding = embedding + self.label(labels)
        y = self.embed(x)
        shape = y.shape
        y = y.flatten(2).mT + self.position
        for block in self.blocks:
            y = block(y, embedding)
        return self.head(y.mT.reshape(shape))
