"""Tiny-ImageNet from tiny-imagenet-200.zip or its unpacked folder; the validation images are the test split."""

from pathlib import PurePosixPath

from edm2core.config.settings import DataSettings
from edm2core.data.file_kinds import wrong
from edm2core.data.files import Files
from edm2core.data.formats.folders import class_groups, is_image
from edm2core.data.formats.images import Labelled, decode, split_of
from edm2core.data.split import Images

_AGAIN = "Get the archive again from its publisher."


def read_tinyimagenet(files: Files, settings: DataSettings) -> Images:
    """Classes by sorted wnid, named by the first of their words; images as they are, or brought to data.resolution.

    test/ has no labels and is left out. Raises InputError naming the class folder, annotation or image that is missing or unknown.
    """
    if files.kind == "tar":
        raise files.wrong("", "It is a tar where the published archive is a zip.", _AGAIN)
    root = _root(files)
    wnids = sorted(_text(files, f"{root}wnids.txt").split())
    if len(set(wnids)) != len(wnids) or not wnids:
        raise files.wrong(f"{root}wnids.txt", "It lists no class, or one twice.", _AGAIN)
    train = _labelled(files, f"{root}train/", wnids)
    if missing := set(range(len(wnids))) - {label for _, label in train}:
        wnid = wnids[min(missing)]
        raise files.wrong(f"{root}train/{wnid}", f"Class {wnid!r} of wnids.txt has no folder.", _AGAIN)
    test = _validation(files, root, wnids)
    first, _ = train[0]
    shape = decode(files.read(first), settings.resolution, files.where(first)).shape
    train_split, test_split = (split_of(files, images, shape, settings.resolution) for images in (train, test))
    return Images(_class_names(files, root, wnids), shape, train_split, test_split)


def _root(files: Files) -> str:
    """The folder that holds wnids.txt, "" or "…/"."""
    names = [name for name in files.sizes if PurePosixPath(name).name == "wnids.txt"]
    if len(names) != 1:
        raise files.wrong("", f"It has {len(names)} files wnids.txt where Tiny-ImageNet has one.", "Check data.format and data.source.")
    return names[0].removesuffix("wnids.txt")


def _labelled(files: Files, folder: str, wnids: list[str]) -> Labelled:
    """The images of a split's class folders, which are all in wnids.txt, by their class and name."""
    groups = class_groups(files, folder)
    for name in groups:
        if name not in wnids:
            raise files.wrong(folder + name, "The class folder is not in wnids.txt.", _AGAIN)
    return [(name, wnids.index(wnid)) for wnid, names in groups.items() for name in names]


def _validation(files: Files, root: str, wnids: list[str]) -> Labelled:
    """The validation images as published, with labels from a list; or where somebody has moved them into folders of their classes.

    In both cases they are in the published order: by file name.
    """
    folder = f"{root}val/images/"
    if not any(name.startswith(folder) and is_image(name) for name in files.sizes):
        return sorted(_labelled(files, f"{root}val/", wnids), key=lambda image: (PurePosixPath(image[0]).name, image[0]))
    annotations = f"{root}val/val_annotations.txt"
    labels: dict[str, int] = {}
    for number, line in enumerate(_text(files, annotations).splitlines(), 1):
        file, wnid, *_ = [*line.split("\t"), "", ""]
        name = folder + file
        if "\t" not in line:
            problem = "It is not 'file, class, box' with tabs between."
        elif wnid not in wnids:
            problem = f"It names the class {wnid!r}, which is not in wnids.txt."
        elif name not in files.sizes:
            problem = f"It names the image {file!r}, which is missing."
        elif name in labels:
            problem = f"It names the image {file!r} twice."
        else:
            labels[name] = wnids.index(wnid)
            continue
        raise wrong(f"{files.where(annotations)}, line {number}", problem, _AGAIN)
    for name in files.sizes:
        if name.startswith(folder) and is_image(name) and name not in labels:
            raise files.wrong(name, "The image has no annotation.", _AGAIN)
    return sorted(labels.items())


def _class_names(files: Files, root: str, wnids: list[str]) -> tuple[str, ...]:
    lines = (line.partition("\t") for line in _text(files, f"{root}words.txt").splitlines())
    words = {wnid: text.split(",")[0].strip() for wnid, _, text in lines}
    return tuple(words.get(wnid) or wnid for wnid in wnids)


def _text(files: Files, name: str) -> str:
    if name not in files.sizes:
        raise files.wrong(name, "The file is missing.", _AGAIN)
    return files.read(name).decode(errors="replace")
