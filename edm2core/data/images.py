"""Image files: one file to one array, and folders of classes to a data set."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edm2core.config.settings import DataSettings
from edm2core.data.files import Files
from edm2core.data.split import Blocks, Images, Split, stratified_test
from edm2core.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 64_000_000  # below Pillow's own warning
_BLOCK = 256  # images decoded together
_THREADS = min(8, os.cpu_count() or 1)  # Pillow decodes outside the interpreter's lock

Groups = dict[str, list[str]]  # class name -> its images' names, both sorted
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
                    where, f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}", "make the image smaller"
                )
            if image.mode[0] in "IF":
                raise _bad(where, f"its pixels ({image.mode}) are deeper than 8 bits", "convert it to 8 bits a channel")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _bad(where, f"its size is absurd ({error})", "make the image smaller") from error
    except UnidentifiedImageError as error:
        raise _bad(where, "it is not an image of a known kind", f"known are {', '.join(FORMATS)}") from error
    except Exception as error:  # a damaged file can raise anything
        raise _bad(where, f"it is truncated or damaged ({error})", "get the file again, or remove it") from error
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
                "set data.resolution",
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
        raise InputError("images of many sizes need one to be brought to", where="data.resolution", do_next="give the side in pixels")
    if files.kind == "tar":
        raise InputError(
            "images are read from a folder or a zip, not from a tar", where=str(files.path), do_next="unpack it, or pack it as a zip"
        )
    root = _root(files)
    top = _subfolders(files, root)
    skipped = [name for name in files.sizes if not is_image(name)]
    notes = [f"{len(skipped)} files without an image's suffix were left out, such as {skipped[0]!r}."] if skipped else []
    if "train" in top and _split_names(files, root, top):
        train_groups, test_groups, note = _two_splits(files, root, top)
        classes, notes = tuple(train_groups), notes + note
        train, test = _labelled(train_groups), _labelled(test_groups)
    else:
        groups = class_groups(files, root)
        classes = tuple(groups)
        train, test = _by_content(files, _labelled(groups), classes, settings.test_share)
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


def is_image(name: str) -> bool:
    """Whether the name has an image's suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def class_groups(files: Files, root: str) -> Groups:
    """The images below each sub-folder of `root` ("" or "…/"). Raises InputError for an empty class and an image in no class."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in files.sizes:
        if name.startswith(root) and is_image(name):
            first, slash, _ = name[len(root) :].partition("/")
            if not slash:
                raise InputError(
                    "the image is in no class folder", where=files.where(name), do_next="put every image into its class's folder"
                )
            groups[first].append(name)
    if not groups:
        raise InputError("the folder holds no images", where=files.where(root), do_next=f"images end in {', '.join(sorted(SUFFIXES))}")
    for folder in sorted(_subfolders(files, root)):
        if folder not in groups:
            raise InputError(
                "the class folder holds no image", where=files.where(root + folder), do_next="add its images, or remove the folder"
            )
    return {name: sorted(groups[name]) for name in sorted(groups)}


def _two_splits(files: Files, root: str, top: set[str]) -> tuple[Groups, Groups, list[str]]:
    named = _split_names(files, root, top)
    other = sorted(
        {name[len(root) :].split("/")[0] for name in files.sizes if name.startswith(root) and is_image(name)} - {"train", "test", "val"}
    )
    if other:
        raise InputError(
            "holds images but is neither train/, test/ nor val/", where=files.where(root + other[0]), do_next="move it out of the data set"
        )
    train, test = class_groups(files, f"{root}train/"), class_groups(files, f"{root}{named[0]}/")
    for name in sorted(train.keys() ^ test.keys()):
        has, lacks = ("train", named[0]) if name in train else (named[0], "train")
        raise InputError(
            f"class {name!r} is in {has}/ and missing here",
            where=files.where(f"{root}{lacks}/{name}"),
            do_next="give both splits the same class folders",
        )
    return train, test, [f"{root}val/ was left out: {root}test/ is the test split."] if len(named) == 2 else []


def _split_names(files: Files, root: str, top: set[str]) -> list[str]:
    """The test split's folder first; empty where there is none. Refuses train/ with classes inside that stands beside something else."""
    named: list[str] = [name for name in ("test", "val") if name in top]
    if "train" in top and not named and _subfolders(files, f"{root}train/"):
        raise InputError(
            "train/ has class folders, but no test/ or val/ stands beside it",
            where=files.where(root),
            do_next="name the test split's folder test or val",
        )
    return named


def _root(files: Files) -> str:
    """Where the class or split folders lie, "" or "…/": below a single folder that packs everything, as archives often have."""
    root = ""
    while True:
        folders = _subfolders(files, root)
        loose = any(name.startswith(root) and "/" not in name[len(root) :] and is_image(name) for name in files.sizes)
        if loose or len(folders) != 1:
            return root
        below = f"{root}{next(iter(folders))}/"
        if not _subfolders(files, below) or any(
            "/" not in name[len(below) :] and name.startswith(below) and is_image(name) for name in files.sizes
        ):
            return root
        root = below


def _subfolders(files: Files, root: str) -> set[str]:
    return {name[len(root) :] for name in files.folders if name.startswith(root) and "/" not in name[len(root) :]} - {""}


def _labelled(groups: Groups) -> Labelled:
    return [(name, label) for label, members in enumerate(groups.values()) for name in members]


def _bad(where: str, what: str, do_next: str) -> InputError:
    return InputError(f"the image cannot be used: {what}", where=where, do_next=do_next)
