"""Images that belong to no data set, as others publish a model's: an array in .npy or .npz, or image files in a folder or zip."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.data.files import open_files
from edm2core.data.folders import is_image
from edm2core.data.images import image_blocks
from edm2core.errors import InputError

AT_ONCE = 2000
ADVICE = (
    "Give a .npy or .npz with one array uint8 [n, height, width, channels] or [n, channels, height, width], "
    "or a folder or zip of image files."
)


def loose_images(path: Path, shape: tuple[int, int, int]) -> tuple[int, Iterator[NDArray[np.uint8]]]:
    """How many images a file or folder has, and blocks uint8 [n, *shape] of them by name; shape is (channels, height, width).

    Raises InputError where there are none or they are of another size or type: of files in a folder only when their block is read.
    """
    if path.suffix in (".npy", ".npz"):
        array = _array(path, shape)
        return len(array), (np.ascontiguousarray(array[begin : begin + AT_ONCE]) for begin in range(0, len(array), AT_ONCE))
    with open_files(path) as files:
        names = sorted(filter(is_image, files.sizes))
    if not names:
        raise InputError("There are no images in it.", where=str(path), do_next=ADVICE)
    return len(names), _decoded(path, names, shape)


def _decoded(path: Path, names: list[str], shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    with open_files(path) as files:
        yield from image_blocks(files, names, shape, None)


def _array(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            with loaded:
                arrays = [array for name in loaded.files if (array := loaded[name]).ndim == 4]  # others hold labels beside the images
            loaded = arrays[0] if len(arrays) == 1 else np.empty(0)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"It cannot be read as an array: {error}.", where=str(path), do_next=ADVICE) from error
    channels_last = (*shape[1:], shape[0])
    if loaded.dtype != np.uint8 or loaded.shape[1:] not in (shape, channels_last):
        raise InputError(
            f"It holds {loaded.dtype} {list(loaded.shape)}, and the data are uint8 images of shape {list(shape)}.",
            where=str(path),
            do_next=ADVICE,
        )
    images: NDArray[np.uint8] = loaded if loaded.shape[1:] == shape else loaded.transpose(0, 3, 1, 2)
    return images
