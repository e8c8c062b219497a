"""The palette, as it is and as eyes without one kind of cone see it."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from edm2core.report.figures.theme import HEAT, INKS, LEVELS, OUTLINES, PALETTE, SHAPES

VISIONS = {  # Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
THEMES = {"light": 0, "dark": 1}


def linear(color: str) -> NDArray[np.float64]:
    encoded = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 0, 1) / (0.9505, 1.0, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color: str, other: str) -> float:
    low, high = sorted(float(TO_XYZ[1] @ linear(each)) for each in (color, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", THEMES)
def test_no_two_recipes_look_the_same_to_anyone(theme: str, vision: str) -> None:
    seen = [lab(VISIONS[vision] @ linear(pair[THEMES[theme]])) for pair in PALETTE]
    distances = [float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)]
    assert min(distances) > 14  # a just noticeable difference is about 2.3


@pytest.mark.parametrize("theme", THEMES)
def test_lines_stand_out_from_the_page(theme: str) -> None:
    paper = INKS[theme][3]  # type: ignore[index]
    assert all(contrast(pair[THEMES[theme]], paper) >= 3 for pair in PALETTE)  # WCAG 1.4.11
    assert all(contrast(color, paper) >= 3 for color in LEVELS[theme])
    assert contrast(INKS[theme][1], paper) >= 4.5  # type: ignore[index]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("ramp", [HEAT, LEVELS])
def test_scales_of_quantities_run_in_lightness_for_everyone(ramp: dict[str, list[str]], theme: str) -> None:
    for vision in VISIONS.values():
        lightness = [lab(vision @ linear(color))[0] for color in ramp[theme]]
        assert lightness in (sorted(lightness), sorted(lightness, reverse=True))


def test_a_shape_tells_apart_what_a_colour_does_not() -> None:
    assert len(SHAPES) == len(OUTLINES) == len(PALETTE) == len(set(SHAPES))
