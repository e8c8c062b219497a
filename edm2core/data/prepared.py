"""Reading the prepared form of a data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edm2core.data.scale import PixelScale
from edm2core.errors import InputError, IntegrityError

INFO = "dataset.json"


@dataclass(frozen=True)
class Prepared:
    """Memory-mapped images uint8 [N, C, H, W] and labels int64 [N]; `info` is dataset.json."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    pixel_scale: PixelScale
    info: dict[str, Any]


def load_prepared(folder: Path) -> Prepared:
    """The data set that `prepare_data` wrote. Raises InputError where there is none, IntegrityError where its files do not fit together."""
    try:
        info = json.loads((folder / INFO).read_bytes())
        shape, counts = tuple(info["shape"]), info["counts"]
        classes, pixel_scale = tuple(info["classes"]), PixelScale(**info["affine"])
        expected = {part: int(counts[part]) for part in ("train", "test")}
    except OSError as error:
        raise InputError("It holds no prepared data set.", where=str(folder), do_next="Prepare it first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder / INFO, f"It is damaged: {error!r}.") from error
    arrays = {
        f"{part}_{content}": _array(folder / f"{part}_{content}.npy", dtype, (count, *shape_of_each))
        for part, count in expected.items()
        for content, dtype, shape_of_each in (("images", np.uint8, shape), ("labels", np.int64, ()))
    }
    for part in expected:
        labels = arrays[f"{part}_labels"]
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            outside = f"It has labels from {labels.min()} to {labels.max()}, and there are {len(classes)} classes, counted from 0."
            raise _damaged(folder / f"{part}_labels.npy", outside)
    return Prepared(**arrays, classes=classes, pixel_scale=pixel_scale, info=info)


def _array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, f"It cannot be read: {error}.") from error
    if array.dtype != dtype or array.shape != shape:
        raise _damaged(path, f"It holds {array.dtype} {array.shape} where {INFO} says {np.dtype(dtype)} {shape}.")
    return array


def _damaged(path: Path, what: str) -> IntegrityError:
    return IntegrityError(what, where=str(path), do_next="Prepare the data set again.")
