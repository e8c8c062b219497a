"""Image files: one file to one array, and folders of classes to a data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edm2core.config.settings import DataSettings
from edm2core.data.files import Files
from edm2core.data.folders import Groups, class_folders
from edm2core.data.split import Blocks, Images, Split, stratified_test
from edm2core.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
MAX_PIXELS = 64_000_000  # below Pillow's own warning
_BLOCK = 256  # images decoded together
_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock

Labelled = list[tuple[str, int]]  # an image's name and label


def decode(data: bytes, resolution: int | None, where: str) -> NDArray[np.uint8]:
    """RGB uint8 [3, H, W] of one image file, upright (EXIF) and without transparency.

    If `resolution` is given, cropped at the centre to a square and resized to that side (Lanczos, antialiased).
    Raises InputError naming `where` for a damaged, absurdly large or deeper than 8-bit image.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _bad(
                    where, f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}", "Make the image smaller."
                )
            if image.mode[0] in "IF":
                raise _bad(where, f"its pixels ({image.mode}) are deeper than 8 bits", "Convert it to 8 bits a channel.")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _bad(where, f"its size is absurd ({error})", "Make the image smaller.") from error
    except UnidentifiedImageError as error:
        raise _bad(where, "it is not an image of a known kind", f"Known are {', '.join(FORMATS)}.") from error
    except Exception as error:  # a damaged file can raise anything
        raise _bad(where, f"it is truncated or damaged ({error})", "Get the file again, or remove it.") from error
    if resolution is not None:
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        upright = upright.crop((left, top, left + side, top + side))
        if side != resolution:
            upright = upright.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(upright).transpose(2, 0, 1))


def image_blocks(files: Files, names: Sequence[str], shape: tuple[int, int, int], resolution: int | None) -> Blocks:
    """The named images in order, as blocks uint8 [n, *shape]. Raises InputError naming the one that cannot be read or has another size."""

    def one(name: str) -> NDArray[np.uint8]:
        pixels = decode(files.read(name), resolution, files.where(name))
        if pixels.shape != shape:
            raise _bad(
                files.where(name),
                f"{pixels.shape[2]} x {pixels.shape[1]} pixels where others have {shape[2]} x {shape[1]}",
                "Set data.resolution.",
            )
        return pixels

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _BLOCK):
            yield np.stack(list(pool.map(one, names[start : start + _BLOCK])))


def read_image_folder(files: Files, settings: DataSettings) -> Images:
    """Class folders inside train/ and test/ (or val/), or at the top: then a stratified share becomes the test split.

    Classes by sorted name. Raises InputError naming the folder or image that is wrong.
    """
    if settings.resolution is None:
        raise InputError("Images of many sizes need one to be brought to.", where="data.resolution", do_next="Give the side in pixels.")
    train_groups, test_groups, notes = class_folders(files)
    classes = tuple(train_groups)
    train = _labelled(train_groups)
    if test_groups is None:
        train, test = _by_content(files, train, classes, settings.test_share)
    else:
        test = _labelled(test_groups)
    shape = (3, settings.resolution, settings.resolution)
    train_split, test_split = (
        Split(
            np.array([label for _, label in part], dtype=np.int64),
            image_blocks(files, [name for name, _ in part], shape, settings.resolution),
        )
        for part in (train, test)
    )
    return Images(classes, shape, train_split, test_split, tuple(notes))


def _by_content(files: Files, labelled: Labelled, classes: tuple[str, ...], share: float) -> tuple[Labelled, Labelled]:
    digests = [hashlib.sha256(files.read(name)).digest() for name, _ in labelled]
    chosen = stratified_test(digests, [label for _, label in labelled], classes, share, str(files.path))
    pairs = list(zip(labelled, chosen, strict=True))
    return [image for image, is_test in pairs if not is_test], [image for image, is_test in pairs if is_test]


def _labelled(groups: Groups) -> Labelled:
    return [(name, label) for label, members in enumerate(groups.values()) for name in members]


def _bad(where: str, what: str, do_next: str) -> InputError:
    return InputError(f"The image cannot be used: {what}.", where=where, do_next=do_next)
