"""Tiny-ImageNet from tiny-imagenet-200.zip or its unpacked folder; the validation images are the test split."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np

from edm2core.config.settings import DataSettings
from edm2core.data.files import Files
from edm2core.data.folders import class_groups, is_image
from edm2core.data.images import decode, image_blocks
from edm2core.data.split import Images, Split
from edm2core.errors import InputError

_AGAIN = "Get the archive again from its publisher."


def read_tinyimagenet(files: Files, settings: DataSettings) -> Images:
    """Classes by sorted wnid, named by the first of their words; images as they are, or brought to data.resolution.

    test/ has no labels and is left out. Raises InputError naming the class folder, annotation or image that is missing or unknown.
    """
    if files.kind == "tar":
        raise InputError("It is a tar where the published archive is a zip.", where=str(files.path), do_next=_AGAIN)
    root = _root(files)
    wnids = sorted(_text(files, f"{root}wnids.txt").split())
    if len(set(wnids)) != len(wnids) or not wnids:
        raise InputError("It lists no class, or one twice.", where=files.where(f"{root}wnids.txt"), do_next=_AGAIN)
    train_names, train_labels = _train(files, root, wnids)
    test_names, test_labels = _validation(files, root, wnids)
    shape = decode(files.read(train_names[0]), settings.resolution, files.where(train_names[0])).shape
    train, test = (
        Split(np.array(labels, dtype=np.int64), image_blocks(files, names, shape, settings.resolution))
        for names, labels in ((train_names, train_labels), (test_names, test_labels))
    )
    return Images(_class_names(files, root, wnids), shape, train, test)


def _root(files: Files) -> str:
    found = [name for name in files.sizes if PurePosixPath(name).name == "wnids.txt"]
    if len(found) != 1:
        raise InputError(
            f"It has {len(found)} files wnids.txt where Tiny-ImageNet has one.",
            where=str(files.path),
            do_next="Check data.format and data.source.",
        )
    return found[0].removesuffix("wnids.txt")


def _train(files: Files, root: str, wnids: list[str]) -> tuple[list[str], list[int]]:
    groups = class_groups(files, f"{root}train/")
    for wnid in wnids:
        if wnid not in groups:
            raise InputError(f"Class {wnid!r} of wnids.txt has no folder.", where=files.where(f"{root}train/{wnid}"), do_next=_AGAIN)
    for folder in groups:
        if folder not in wnids:
            raise InputError("The class folder is not in wnids.txt.", where=files.where(f"{root}train/{folder}"), do_next=_AGAIN)
    return [name for wnid in wnids for name in groups[wnid]], [label for label, wnid in enumerate(wnids) for _ in groups[wnid]]


def _validation(files: Files, root: str, wnids: list[str]) -> tuple[list[str], list[int]]:
    folder = f"{root}val/images/"
    if not any(name.startswith(folder) and is_image(name) for name in files.sizes):
        return _sorted_into_classes(files, root, wnids)
    annotations = f"{root}val/val_annotations.txt"
    where = files.where(annotations)
    labels: dict[str, int] = {}
    for number, line in enumerate(_text(files, annotations).splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2:
            raise InputError("It is no 'file, class, box' with tabs between.", where=f"{where}, line {number}", do_next=_AGAIN)
        name = folder + fields[0]
        if fields[1] not in wnids:
            raise InputError(
                f"It names the class {fields[1]!r}, which is not in wnids.txt.", where=f"{where}, line {number}", do_next=_AGAIN
            )
        if name not in files.sizes:
            raise InputError(f"It names the image {fields[0]!r}, which is missing.", where=f"{where}, line {number}", do_next=_AGAIN)
        if name in labels:
            raise InputError(f"It names the image {fields[0]!r} twice.", where=f"{where}, line {number}", do_next=_AGAIN)
        labels[name] = wnids.index(fields[1])
    for name in files.sizes:
        if name.startswith(folder) and is_image(name) and name not in labels:
            raise InputError("The image has no annotation.", where=files.where(name), do_next=_AGAIN)
    names = sorted(labels)
    return names, [labels[name] for name in names]


def _sorted_into_classes(files: Files, root: str, wnids: list[str]) -> tuple[list[str], list[int]]:
    """The validation images where somebody has moved them into folders of their classes: by file name, as they were before."""
    groups = class_groups(files, f"{root}val/")
    for folder in groups:
        if folder not in wnids:
            raise InputError("The class folder is not in wnids.txt.", where=files.where(f"{root}val/{folder}"), do_next=_AGAIN)
    labels = {name: wnids.index(folder) for folder, names in groups.items() for name in names}
    names = sorted(labels, key=lambda name: (PurePosixPath(name).name, name))
    return names, [labels[name] for name in names]


def _class_names(files: Files, root: str, wnids: list[str]) -> tuple[str, ...]:
    lines = (line.partition("\t") for line in _text(files, f"{root}words.txt").splitlines())
    words = {wnid: text.split(",")[0].strip() for wnid, _, text in lines}
    return tuple(words.get(wnid) or wnid for wnid in wnids)


def _text(files: Files, name: str) -> str:
    if name not in files.sizes:
        raise InputError("The file is missing.", where=files.where(name), do_next=_AGAIN)
    return files.read(name).decode(errors="replace")
