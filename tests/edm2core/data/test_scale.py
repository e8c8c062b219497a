from __future__ import annotations

import pytest

from edm2core.data.scale import Affine
from edm2core.errors import InputError


def test_the_default_maps_to_minus_one_and_one() -> None:
    assert (Affine().low, Affine().high) == (-1, 1)
    assert Affine().to_network(0.5) == 0


def test_scaling_back_undoes_scaling() -> None:
    affine = Affine(scale=0.665, offset=-0.2)
    assert affine.to_images(affine.to_network(0.3)) == pytest.approx(0.3)
    assert affine.to_network(1.0) == affine.high


def test_a_scale_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        Affine(scale=0.0)
