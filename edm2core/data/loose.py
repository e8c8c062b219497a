"""Images outside any data set, such as published samples of a model: an array in .npy or .npz, or image files in a folder or zip."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edm2core.data.file_kinds import beginning, unexpected, wrong
from edm2core.data.files import open_files
from edm2core.data.formats.folders import is_image
from edm2core.data.formats.images import image_blocks
from edm2core.data.headers import ArrayHeader, array_headers, load_array
from edm2core.data.split import blocks_of

AT_ONCE = 2000  # images of an array in a block
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
        return len(array), map(np.ascontiguousarray, blocks_of(array, AT_ONCE))
    with open_files(path) as files:
        names = sorted(filter(is_image, files.sizes))
    if not names:
        raise wrong(path, "There are no images in it.", ADVICE)
    return len(names), _decoded(path, names, shape)


def _decoded(path: Path, names: list[str], shape: tuple[int, int, int]) -> Iterator[NDArray[np.uint8]]:
    with open_files(path) as files:
        yield from image_blocks(files, names, shape, None)


def _array(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The images [n, *shape] of a file, whose header is checked before an .npz is expanded."""
    expected = f"and the data are uint8 images of shape {list(shape)}."
    header: ArrayHeader | NDArray[np.uint8]
    if path.suffix == ".npy":
        if not beginning(path).startswith(b"\x93NUMPY"):
            raise unexpected(path, "an array in .npy", ADVICE)
        header = array = load_array(path, None, ADVICE)
    else:
        images = {name: header for name, header in array_headers(path, ADVICE).items() if len(header.shape) == 4}  # others hold labels
        if len(images) != 1:
            raise wrong(path, f"It holds {len(images) or 'no'} arrays of four dimensions, {expected}", ADVICE)
        ((name, header),) = images.items()
    if header.dtype != np.uint8 or header.shape[1:] not in (shape, (*shape[1:], shape[0])):
        raise wrong(path, f"It holds {header.dtype} {list(header.shape)}, {expected}", ADVICE)
    if path.suffix == ".npz":
        array = load_array(path, name, ADVICE)
    return array if array.shape[1:] == shape else array.transpose(0, 3, 1, 2)
