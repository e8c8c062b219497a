import pytest

from edm2core.data.scale import PixelScale
from edm2core.errors import InputError


def test_the_default_maps_to_minus_one_and_one() -> None:
    assert (PixelScale().low, PixelScale().high) == (-1, 1)
    assert PixelScale().to_network(0.5) == 0


def test_scaling_back_undoes_scaling() -> None:
    scale = PixelScale(scale=0.665, offset=-0.2)
    assert scale.to_images(scale.to_network(0.3)) == pytest.approx(0.3)
    assert scale.to_network(1.0) == scale.high


def test_a_scale_that_is_not_positive_is_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        PixelScale(scale=0.0)
