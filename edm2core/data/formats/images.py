"""Image files: one file to one array, and folders of classes to a data set."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import BytesIO
from itertools import compress
from threading import Lock
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edm2core.config.fields import Colour
from edm2core.config.settings import DataSettings
from edm2core.data.alpha import alpha_of, png_chunks
from edm2core.data.file_kinds import BEGINNING, Kind, kind_of, wrong
from edm2core.data.files import Files
from edm2core.data.formats.folders import Groups, class_folders
from edm2core.data.split import Blocks, Images, Split, stratified_test
from edm2core.errors import InputError
from edm2core.words import printable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
MAX_PIXELS = 64_000_000  # below Pillow's own warning
LARGE = 4_000_000  # pixels; larger images are decoded one at a time, so that threads do not fill the memory with them
_DECODING_A_LARGE_IMAGE = Lock()
_BLOCK = 256  # images decoded together
_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock

Labelled = list[tuple[str, int]]  # images' names and labels


def decode(data: bytes, resolution: int | None, where: str, background: Colour | None = None, channels: int = 3) -> NDArray[np.uint8]:
    """RGB uint8 [3, H, W] of one image file, or its luma [1, H, W] (ITU-R 601), upright (EXIF); transparent pixels stand on `background`.

    If `resolution` is given, cropped at the centre to a square and resized to that side (Lanczos, antialiased).
    Raises InputError naming `where` for a damaged, absurdly large or deeper than 8-bit image, and for transparency without a background.
    """
    try:
        upright = _upright(data, where, background)
    except _MetadataError:
        upright = _upright(_without_metadata(data), where, background)
    if resolution is not None:
        side = min(upright.size)
        left, top = (upright.width - side) // 2, (upright.height - side) // 2
        upright = upright.crop((left, top, left + side, top + side))
        if side != resolution:
            upright = upright.resize((resolution, resolution), Image.Resampling.LANCZOS)
    if channels == 1:
        return np.ascontiguousarray(np.asarray(upright.convert("L")))[None]
    return np.ascontiguousarray(np.asarray(upright).transpose(2, 0, 1))


class _MetadataError(Exception):
    """Pillow refuses to expand a PNG's texts or colour profile; its pixels may be sound."""


def _upright(data: bytes, where: str, background: Colour | None) -> Image.Image:
    """The image in RGB, turned as its EXIF says."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height} pixels"
                raise _bad(where, f"{size} are more than the limit of {MAX_PIXELS:,}", "Make the image smaller.")
            if image.mode[0] in "IF":
                raise _bad(where, f"its pixels ({image.mode}) are deeper than 8 bits", "Convert it to 8 bits a channel.")
            with _DECODING_A_LARGE_IMAGE if image.width * image.height > LARGE else nullcontext():
                upright = ImageOps.exif_transpose(image)
                return _on(upright, background, where) if image.has_transparency_data else upright.convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _bad(where, f"its size is absurd ({str(error).partition(',')[0]})", "Make the image smaller.") from error
    except UnidentifiedImageError as error:
        kind = kind_of(data[:BEGINNING]) or Kind("not an image of a known kind", f"Known are {', '.join(FORMATS)}.")
        raise _bad(where, f"it is {kind.name}", kind.do_next) from error
    except Exception as error:  # a damaged file can raise anything
        if any(limit in str(error) for limit in ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY")):
            raise _MetadataError from error
        raise _bad(where, f"it is truncated or damaged ({error})", "Get the file again, or remove it.") from error


def _on(image: Image.Image, background: Colour | None, where: str) -> Image.Image:
    """The image on a background colour, RGB. Colours of fully transparent pixels are arbitrary and do not show."""
    coloured = image.convert("RGBA")
    if background is None:
        if cast(tuple[int, int], coloured.getchannel("A").getextrema())[0] < 255:
            raise _bad(where, "it is transparent in part", "Flatten it onto the colour that it is meant to stand on.")
        return coloured.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", coloured.size, (*background, 255)), coloured).convert("RGB")


def _without_metadata(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, which do not touch its pixels (PNG specification, section 11.3)."""
    return data[:8] + b"".join(chunk for kind, chunk in png_chunks(data) if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"))


def split_of(
    files: Files, images: Labelled, shape: tuple[int, int, int], resolution: int | None, background: Colour | None = None
) -> Split:
    """The labels of these images, and the images as `image_blocks` reads them."""
    labels = np.array([label for _, label in images], dtype=np.int64)
    return Split(labels, image_blocks(files, [name for name, _ in images], shape, resolution, background))


def image_blocks(
    files: Files, names: Sequence[str], shape: tuple[int, int, int], resolution: int | None, background: Colour | None = None
) -> Blocks:
    """The named images in order, as blocks uint8 [n, *shape], of 3 channels or 1, transparent pixels on `background`.

    Raises InputError naming the first image that cannot be read or has another size.
    """

    def read(name: str) -> NDArray[np.uint8]:
        pixels = decode(files.read(name), resolution, files.where(name), background, shape[0])
        if pixels.shape != shape:
            sizes = f"{pixels.shape[2]} x {pixels.shape[1]} pixels where others have {shape[2]} x {shape[1]}"
            raise _bad(files.where(name), sizes, "Set data.resolution.")
        return pixels

    with ThreadPoolExecutor(_THREADS) as pool:
        for start in range(0, len(names), _BLOCK):
            yield np.stack(list(pool.map(read, names[start : start + _BLOCK])))


def read_image_folder(files: Files, settings: DataSettings) -> Images:
    """Class folders inside folders of splits, or at the top: then a stratified share becomes the test split; or NVlabs' archives.

    Classes by sorted name. Raises InputError naming the folder or image that is wrong.
    """
    if settings.resolution is None:
        raise InputError("Images of many sizes need one to be brought to.", where="data.resolution", do_next="Give the side in pixels.")
    train_groups, test_groups, notes, revised = class_folders(files)
    train = _labelled(train_groups)
    if test_groups is None:
        digests = [hashlib.sha256(files.read(name)).digest() for name, _ in train]
        tested = stratified_test(digests, [label for _, label in train], tuple(train_groups), settings.test_share, str(files.path))
        train, test = (list(compress(train, chosen)) for chosen in (~tested, tested))
    else:
        test = _labelled(test_groups)
    if with_alpha := sum(alpha_of(files, name) for name, _ in (*train, *test)):
        colour = ", ".join(map(str, settings.background))
        notes.append(f"{with_alpha} of {len(train) + len(test)} images have an alpha channel: transparent pixels stand on RGB {colour}.")
    shape = (settings.channels, settings.resolution, settings.resolution)
    train_split, test_split = (split_of(files, part, shape, settings.resolution, settings.background) for part in (train, test))
    return Images(tuple(map(printable, train_groups)), shape, train_split, test_split, tuple(notes), revised or with_alpha > 0)


def _labelled(groups: Groups) -> Labelled:
    return [(name, label) for label, members in enumerate(groups.values()) for name in members]


def _bad(where: str, what: str, do_next: str) -> InputError:
    return wrong(where, f"The image cannot be used: {what}.", do_next)
