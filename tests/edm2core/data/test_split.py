import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edm2core.data.split import stratified_test
from edm2core.errors import InputError

CLASSES = ("a", "b", "c")
LABELS = st.lists(st.integers(0, 2), max_size=60).map(lambda extra: [0, 0, 1, 1, 2, 2, *extra])


def digests(n: int) -> list[bytes]:
    return [hashlib.sha256(str(i).encode()).digest() for i in range(n)]


@given(LABELS, st.floats(0.01, 0.99))
def test_every_class_gives_its_share_and_keeps_training_images(labels: list[int], share: float) -> None:
    chosen = stratified_test(digests(len(labels)), labels, CLASSES, share, "")
    for label in range(3):
        members = chosen[np.array(labels) == label]
        assert 0 < members.sum() < len(members)
        assert abs(members.sum() - share * len(members)) <= 1


@given(LABELS, st.randoms())
def test_the_split_follows_the_images_not_their_order(labels: list[int], random) -> None:  # type: ignore[no-untyped-def]
    contents = digests(len(labels))
    order = list(range(len(labels)))
    random.shuffle(order)
    chosen = stratified_test(contents, labels, CLASSES, 0.3, "")
    shuffled = stratified_test([contents[i] for i in order], [labels[i] for i in order], CLASSES, 0.3, "")
    assert shuffled.tolist() == [chosen[i] for i in order]


def test_a_share_of_zero_keeps_everything_for_training() -> None:
    assert not stratified_test(digests(3), [0, 1, 2], CLASSES, 0.0, "").any()


def test_a_class_of_one_image_is_named() -> None:
    with pytest.raises(InputError, match="Class 'b' has 1 image"):
        stratified_test(digests(5), [0, 0, 1, 2, 2], CLASSES, 0.2, "")
