"""Folders of classes: which images a data set has and in which split, by their names alone. Importable without Pillow."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edm2core.data.files import Files, open_files
from edm2core.data.split import ClassCount, test_images
from edm2core.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})

Groups = dict[str, list[str]]  # class name -> its images' names, both sorted


class Folders(NamedTuple):
    """A data set's images by class; where `test` is None, a share of `train` becomes it. `notes` say what was left out."""

    train: Groups
    test: Groups | None
    notes: list[str]


def class_folders(files: Files) -> Folders:
    """Class folders inside train/ and test/ (or val/), or at the top. Raises InputError naming the folder or image that is wrong."""
    if files.kind == "tar":
        raise InputError(
            "Images are read from a folder or a zip, not from a tar.", where=str(files.path), do_next="Unpack it, or pack it as a zip."
        )
    root = _root(files)
    top = _subfolders(files, root)
    skipped = [name for name in files.sizes if not is_image(name)]
    notes = [f"Without an image's suffix and left out: {len(skipped)}, such as {skipped[0]!r}."] if skipped else []
    if "train" in top and _split_names(files, root, top):
        train, test, note = _two_splits(files, root, top)
        return Folders(train, test, notes + note)
    return Folders(class_groups(files, root), None, notes)


def images_per_class(path: Path, test_share: float) -> list[ClassCount]:
    """How many images for training and for test each class of a folder or zip has, without reading one.

    Raises InputError as `class_folders` does, and for a class too small to have both splits.
    """
    with open_files(path) as files:
        train, test, _ = class_folders(files)
    if test is not None:
        return [ClassCount(name, len(images), len(test[name])) for name, images in train.items()]
    tested = {name: test_images(len(images), test_share, name, str(path)) for name, images in train.items()}
    return [ClassCount(name, len(images) - tested[name], tested[name]) for name, images in train.items()]


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
                    "The image is in no class folder.", where=files.where(name), do_next="Put every image into its class's folder."
                )
            groups[first].append(name)
    if not groups:
        raise InputError("The folder holds no images.", where=files.where(root), do_next=f"Images end in {', '.join(sorted(SUFFIXES))}.")
    for folder in sorted(_subfolders(files, root)):
        if folder not in groups:
            raise InputError(
                "The class folder holds no image.", where=files.where(root + folder), do_next="Add its images, or remove the folder."
            )
    return {name: sorted(groups[name]) for name in sorted(groups)}


def _two_splits(files: Files, root: str, top: set[str]) -> tuple[Groups, Groups, list[str]]:
    named = _split_names(files, root, top)
    other = sorted(
        {name[len(root) :].split("/")[0] for name in files.sizes if name.startswith(root) and is_image(name)} - {"train", "test", "val"}
    )
    if other:
        raise InputError(
            "It holds images but is neither train/, test/ nor val/.",
            where=files.where(root + other[0]),
            do_next="Move it out of the data set.",
        )
    train, test = class_groups(files, f"{root}train/"), class_groups(files, f"{root}{named[0]}/")
    for name in sorted(train.keys() ^ test.keys()):
        has, lacks = ("train", named[0]) if name in train else (named[0], "train")
        raise InputError(
            f"Class {name!r} is in {has}/ and missing here.",
            where=files.where(f"{root}{lacks}/{name}"),
            do_next="Give both splits the same class folders.",
        )
    return train, test, [f"{root}val/ was left out: {root}test/ is the test split."] if len(named) == 2 else []


def _split_names(files: Files, root: str, top: set[str]) -> list[str]:
    """The test split's folder first; empty where there is none. Refuses train/ with classes inside that stands beside something else."""
    named: list[str] = [name for name in ("test", "val") if name in top]
    if "train" in top and not named and _subfolders(files, f"{root}train/"):
        raise InputError(
            "train/ has class folders, but no test/ or val/ stands beside it.",
            where=files.where(root),
            do_next="Name the test split's folder test or val.",
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
