"""Images under affine maps, resampled at twice their resolution between the two halves of an orthogonal wavelet (StyleGAN2-ADA's).

Karras et al. 2020 (arXiv 2006.06676), appendix B.2. Beyond its edges an image goes on as its mirror image, and beyond that as zero.
All is float64, which neither TF32 nor the batch changes.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edm2core.diffusion.devices import sent

SYM6 = (
    *(0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633),
    *(0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252),
    *(-0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148),
)
"""The scaling filter of the symlet with six vanishing moments (Daubechies, Ten Lectures on Wavelets, table 6.3), of sum √2."""
CENTRE = 5  # the filter's largest number lies on its pixel
MARGIN = 3  # pixels around the new image whose wavelets reach into it
HELD = 64  # images at once


def resampled(images: Tensor, inverse: Tensor) -> Tensor:
    """Images [N, C, S, S] moved so that a place p shows what lay at `inverse` p; float64 [N, 3, 3], origin in the centre, unit S."""
    side = images.shape[-1]
    finer, coarser = _filters(side, images.device)
    given, wanted = len(finer), coarser.shape[1]
    turn, shift = inverse[:, :2, :2], inverse[:, :2, 2:] * side
    # At twice the resolution pixel i has its centre at 2i, half a step before the middle of the two that it became.
    shift = 2 * shift + 0.5 * turn.sum(2, keepdim=True) - 0.5
    maps = torch.cat([turn * (wanted / given), shift * (2 / given)], dim=2)  # both images from -1 to 1, as torch has it
    parts = []
    for some, how in zip(torch.split(images, HELD), torch.split(maps, HELD), strict=True):
        grid = F.affine_grid(how, [len(some), some.shape[1], wanted, wanted], align_corners=False)
        fine = F.grid_sample(finer @ some.double() @ finer.mT, grid, "bilinear", "zeros", align_corners=False)
        parts.append((coarser @ fine @ coarser.mT).to(images.dtype))
    return torch.cat(parts)


@cache
def _filters(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What brings a row of pixels, mirrored at both ends, to twice the resolution: [2 (3 side - 2), side]; and back: [side, 2 (side + 6)].

    The row that is brought back has `MARGIN` pixels more at both ends.
    """
    mirrored = np.pad(np.eye(side), ((side - 1, side - 1), (0, 0)), "reflect")
    finer, coarser = _wavelets(len(mirrored)) @ mirrored, _wavelets(side + 2 * MARGIN).T[MARGIN:-MARGIN].copy()
    return sent(torch.from_numpy(finer), device), sent(torch.from_numpy(coarser), device)


def _wavelets(pixels: int) -> NDArray[np.float64]:
    """[2 pixels, pixels]: each pixel's filter at twice the resolution."""
    matrix = np.zeros((2 * pixels + len(SYM6), pixels))
    for pixel in range(pixels):
        matrix[2 * pixel : 2 * pixel + len(SYM6), pixel] = SYM6
    return matrix[CENTRE : CENTRE + 2 * pixels]
