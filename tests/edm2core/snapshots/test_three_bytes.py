import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edm2core.snapshots.three_bytes import REST, packed, unpacked

SMALLEST = 2.0**-14  # that is a normal number in half precision


@given(st.lists(st.floats(-60000, 60000, width=32), min_size=1, max_size=20))
def test_a_number_comes_back_to_a_millionth(numbers: list[float]) -> None:
    given = torch.tensor(numbers)
    found = unpacked(packed({"x": given}), "x")
    # half a 256th of a step, which is 2^-10 of a number; a rest of +128 is one less
    assert bool(((found - given.double()).abs() <= 2.0**-18 * given.double().abs().clamp(min=SMALLEST)).all())


def test_rounding_of_normal_numbers_stays_within_its_bound() -> None:
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    tensors = packed({"x": x})
    for stored, bound in ((unpacked(tensors, "x"), 2.0**-20), (tensors["x"].double(), 2.0**-12)):
        assert 0.8 < float((stored - x.double()).norm() / x.double().norm()) / bound < 0.9


def test_it_takes_three_bytes_a_number() -> None:
    assert sum(tensor.nbytes for tensor in packed({"x": torch.randn(7, 5)}).values()) == 3 * 35


def test_numbers_that_half_precision_cannot_hold_stay_as_they_are() -> None:
    x = torch.tensor([1e-3, 70000.0])
    assert list(packed({"x": x})) == ["x"]
    assert torch.equal(unpacked(packed({"x": x}), "x"), x.double())


def test_what_was_stored_in_half_precision_is_read() -> None:
    x = torch.randn(10)
    found = packed({"x": x})
    del found["x" + REST]
    assert torch.equal(unpacked(found, "x"), x.half().double())


def test_the_shape_stays() -> None:
    found = packed({"a": torch.randn(3, 4, 2, 2), "b": torch.tensor(0.0)})
    assert [unpacked(found, name).shape for name in "ab"] == [(3, 4, 2, 2), ()]
    assert float(unpacked(found, "b")) == 0
    with pytest.raises(KeyError):
        unpacked(found, "c")
