"""A data set as a reader delivers it, and how a test split is made where there is none."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edm2core.data.file_kinds import wrong

Blocks = Iterator[NDArray[np.uint8]]


class ClassCount(NamedTuple):
    """How many images a class has."""

    name: str
    train: int
    test: int


@dataclass(frozen=True)
class Split:
    """Labels int64 [N], and the images in the same order, as blocks uint8 [n, C, H, W] that are read when asked for."""

    labels: NDArray[np.int64]
    images: Blocks


@dataclass(frozen=True)
class Images:
    """A data set as a reader delivers it; `notes` say what of the source was left out, or changed."""

    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # C, H, W
    train: Split
    test: Split
    notes: tuple[str, ...] = ()
    revised: bool = False  # whether the first version of the reader gave other images


def blocks_of(images: NDArray[np.uint8], size: int = 1024) -> Blocks:
    """An array [N, C, H, W] cut into blocks of at most `size` images."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def stratified_test(digests: Sequence[bytes], labels: ArrayLike, classes: Sequence[str], share: float, where: str) -> NDArray[np.bool_]:
    """Which images are the test split, bool [N]: of each class the `share` whose content's digests are smallest.

    It depends on the images alone, so that it is the same everywhere, equal images fall on one side (but for one pair a class),
    and one more image moves few others. Raises InputError for a class too small to have both splits.
    """
    own = np.asarray(labels)
    chosen = np.zeros(len(own), dtype=np.bool_)
    for label, name in enumerate(classes):
        members = np.flatnonzero(own == label).tolist()
        chosen[sorted(members, key=digests.__getitem__)[: test_images(len(members), share, name, where)]] = True
    return chosen


def divided(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: tuple[str, ...], share: float, where: str) -> Images:
    """Images [N, C, H, W] as a data set, of which `stratified_test` chooses the test split."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    test = stratified_test(digests, labels, classes, share, where)
    train, tested = (Split(labels[part], blocks_of(images[part])) for part in (~test, test))
    return Images(classes, (images.shape[1], images.shape[2], images.shape[3]), train, tested)


def test_images(count: int, share: float, name: str, where: str) -> int:
    """How many of the class's images are for test. Raises InputError for a class too small to have both splits."""
    if share == 0:
        return 0
    if count < 2:
        few = f"Class {name!r} has {count} image, and a training and a test split need one each."
        raise wrong(where, few, "Add images, or set data.test_share: 0.")
    return min(max(round(share * count), 1), count - 1)


def enough_to_probe(counts: Sequence[ClassCount], holds_out: bool, where: str) -> None:
    """Checks that every class has images to train, choose a cell and test on. Raises InputError naming the classes that lack some."""
    if not any(own.test for own in counts):
        do_next = "Give data with a test folder, or set data.test_share above 0."
        raise wrong(where, "The probe needs test images, and the data set has none.", do_next)
    to_train = "2 training images" if holds_out else "1 training image"
    because = "; a grid holds some out to choose its cell on" if holds_out else ""
    for needed, reason, few in (
        (to_train, because, [own.name for own in counts if own.train < 1 + holds_out]),
        ("1 test image", "", [own.name for own in counts if not own.test]),
    ):
        if few:
            named = ", ".join(few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
            do_next = "Add images of those classes or leave the classes out of the data, or set `probe: false`."
            raise wrong(where, f"The probe needs {needed} of every class, and has fewer of {named}{reason}.", do_next)
