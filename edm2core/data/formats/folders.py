"""Folders of classes: the images of each class and split, found by their names alone. Importable without Pillow."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from edm2core.data.alpha import alpha_of
from edm2core.data.files import Files, open_files
from edm2core.data.formats.nvlabs import LABELS, is_nvlabs, labelled
from edm2core.data.split import ClassCount, test_images
from edm2core.words import printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})
LATER_SUFFIXES = (".jfif", ".jpe")  # read since the second version
UNREAD = frozenset(
    {".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".psd", ".tga", ".ico", ".exr", ".hdr", ".dng", ".cr2", ".nef", ".arw"}
)
SPLITS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "holdout"), "val"),
}
_FILLERS = frozenset({"set", "data", "dataset", "split", "images", "image", "imgs", "img", "folder"})  # beside a split's name
_NO_CLASSES = (
    "Images without classes go into one folder of any name, the same in every split, with network.classes: 0, and `probe: false` in the "
    "experiment, since there is nothing to tell apart."
)

Groups = dict[str, list[str]]  # class name -> its images' names; both sorted, labels of NVlabs' archives as numbers


class Folders(NamedTuple):
    """A data set's images by class; if `test` is None, a share of `train` becomes the test split. `notes` say what was left out."""

    train: Groups
    test: Groups | None
    notes: list[str]
    revised: bool  # whether the first version of this reader read the names differently


class Survey(NamedTuple):
    """What names and headers say of a source, before its images are read."""

    counts: list[ClassCount]
    revised: bool  # whether the first version of this reader gave other images, classes or colours


def class_folders(files: Files) -> Folders:
    """The images by class. Class folders lie in a folder for training and one for test (or validation), or at the top.

    An archive of NVlabs' tool has its classes in dataset.json. Raises InputError naming the folder or image that is wrong.
    """
    if files.kind == "tar":
        raise files.wrong("", "Images are read from a folder or a zip, not from a tar.", "Unpack it, or pack it as a zip.")
    root = _root(files)
    images = [name for name in files.sizes if is_image(name)]
    later = files.renamed or any(map(is_image, files.left_behind)) or any(name.lower().endswith(LATER_SUFFIXES) for name in images)
    if is_nvlabs(files, root, images):
        groups, notes = labelled(files, root, images)
        return Folders(groups, None, _left_out(files, read=root + LABELS) + notes, revised=True)
    top = _subfolders(files, root)
    if _are_splits(files, root, top):
        train, test, notes, unwrapped = _two_splits(files, root, top)
        return Folders(train, test, _left_out(files) + notes, later or unwrapped or not ("train" in top and {"test", "val"} & top))
    _check_not_splits(files, root, top)
    return Folders(class_groups(files, root), None, _left_out(files) + _splits_inside(files, root, top), later)


def survey(path: Path, test_share: float) -> Survey:
    """Counts each class's images for training and test by names and headers, and tells whether the reader's first version differed.

    Raises InputError as `class_folders` does, for a class too small to have both splits, and for a stand-in such as a Git LFS pointer.
    """
    with open_files(path) as files:
        train, test, _, revised = class_folders(files)
        images = (name for groups in (train, test or {}) for names in groups.values() for name in names)
        revised = sum(alpha_of(files, name) for name in images) > 0 or revised  # all are looked at: each could be a stand-in
    if test is not None:
        return Survey([ClassCount(printable(name), len(images), len(test[name])) for name, images in train.items()], revised)
    tested = {name: test_images(len(images), test_share, printable(name), str(path)) for name, images in train.items()}
    return Survey([ClassCount(printable(name), len(images) - tested[name], tested[name]) for name, images in train.items()], revised)


def splits_of(folders: Collection[str]) -> dict[str, str]:
    """The folders whose names mean a split: folder → train, test or val.

    Case and synonyms ("TRAIN", "training_set") do not matter, nor do words that all names share ("seg_train", "seg_test", "seg_pred").
    """
    words = {folder: _words(folder) for folder in folders}
    shared = set.intersection(*map(set, words.values())) - SPLITS.keys() if len(words) > 1 else set()
    telling = {folder: [word for word in words[folder] if word not in shared] for folder in folders}
    return {folder: SPLITS[words[0]] for folder, words in telling.items() if len(words) == 1 and words[0] in SPLITS}


def _words(folder: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder).lower()) if word not in _FILLERS]


def is_image(name: str) -> bool:
    """Whether the name has an image's suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def class_groups(files: Files, root: str, split: str = "") -> Groups:
    """The images below each sub-folder of `root` ("" or "…/"), which may be that of a split.

    Raises InputError for an empty class and an image in no class.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in files.sizes:
        if name.startswith(root) and is_image(name):
            first, slash, _ = name[len(root) :].partition("/")
            if not slash:
                of_split, rename = (f" of the split {split}/", f" If {split}/ is a class and no split, rename it.") if split else ("", "")
                do_next = f"Put every image into its class's folder. {_NO_CLASSES}{rename}"
                raise files.wrong(name, f"The image is in no class folder{of_split}.", do_next)
            groups[first].append(name)
    if not groups:
        raise files.wrong(root, "The folder holds no images.", _what_it_holds(files, root))
    for folder in sorted(_subfolders(files, root)):
        if folder not in groups:
            raise files.wrong(root + folder, "The class folder holds no image.", "Add its images, or remove the folder.")
    return {name: sorted(groups[name]) for name in sorted(groups)}


def _what_it_holds(files: Files, root: str) -> str:
    """The advice for a folder without images: the suffixes that images have, and those that its files have."""
    suffixes = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in files.sizes if name.startswith(root))
    if suffixes.keys() & {".tfrecord", ".tfrecords"}:
        return "It holds TFRecords, which are not read: unpack the images from them."
    counted = ", ".join(f"{suffix} ({count})" for suffix, count in suffixes.most_common(3))
    return f"Images end in {', '.join(sorted(SUFFIXES))}." + (f" It holds {counted}." if counted else "")


def _left_out(files: Files, read: str = "") -> list[str]:
    """Notes on the files of a source that are not read. `read` is a file that is, beside the images."""
    skipped = [name for name in files.sizes if not is_image(name) and name != read]
    unread = [name for name in skipped if PurePosixPath(name).suffix.lower() in UNREAD]
    notes = {
        "Without an image's suffix and left out": skipped,
        "Of them, images of kinds that are not read (convert them to PNG or JPEG)": unread,
        "Left behind by systems and left out": files.left_behind,
        "Names in an encoding that the zip does not state, read as code page 437 (pack it again with names in UTF-8)": files.unstated,
    }
    return [f"{note}: {len(names)}, such as {names[0]!r}." for note, names in notes.items() if names]


def _are_splits(files: Files, root: str, top: set[str]) -> bool:
    """Whether the folders are splits, not classes.

    They are if all are named so, or if one is for training and has another split beside it or folders inside.
    """
    named = splits_of(top)
    training = [folder for folder, split in named.items() if split == "train"]
    inside = any(_subfolders(files, f"{root}{folder}/") for folder in training)
    return bool(named) and (len(named) == len(top) or (bool(training) and (len(named) > len(training) or inside)))


def _check_not_splits(files: Files, root: str, top: set[str]) -> None:
    """Raises InputError if all folder names mean splits, such as trainA, trainB, testA and testB: they are no classes."""
    meant = [{SPLITS[word] for word in _words(folder) if word in SPLITS} for folder in top]
    if all(len(splits) == 1 for splits in meant) and len(set.union(*meant, set())) > 1:
        do_next = "Give one folder train and one folder test, with the same class folders inside, or name classes otherwise."
        raise files.wrong(root, f"{_listed(top)} look like splits of several kinds, not like classes.", do_next)


def _splits_inside(files: Files, root: str, top: set[str]) -> list[str]:
    """A note on class folders that hold folders of splits: the splits are read together."""
    inside = {folder: _subfolders(files, f"{root}{folder}/") for folder in sorted(top)}
    if not inside or not all(folders and len(splits_of(folders)) == len(folders) for folders in inside.values()):
        return []
    folder, folders = next(iter(inside.items()))
    return [
        f"The class folders hold folders of splits, such as {root}{folder}/{min(folders)}/: they are read together, and a share of each "
        "class is the test split. To keep the splits, put them at the top, with the class folders inside."
    ]


def _inside_split(files: Files, root: str, folder: str) -> str:
    """The folder with a split's class folders: its own, or one of the same name inside it, as in Kaggle's archives."""
    while _subfolders(files, f"{root}{folder}/") == {PurePosixPath(folder).name}:
        folder = f"{folder}/{PurePosixPath(folder).name}"
    return folder


def _two_splits(files: Files, root: str, top: set[str]) -> tuple[Groups, Groups, list[str], bool]:
    """The groups of both splits, notes on them, and whether a split's folder lay inside another of the same name."""
    folders = _split_names(files, root, top)
    named = {split: _inside_split(files, root, folder) for split, folder in folders.items()}
    train = class_groups(files, f"{root}{named['train']}/", named["train"])
    rename = f"or rename {folders['train']}/, if it is a class."
    if "test" not in named and "val" not in named:
        alone = f"{named['train']}/ has class folders, but no test/ or val/ stands beside it."
        raise files.wrong(root, alone, f"Name the test split's folder test or val; {rename}")
    with_images = {name[len(root) :].split("/")[0] for name in files.sizes if name.startswith(root) and is_image(name)}
    for other in sorted(with_images - set(folders.values())):
        no_split = f"It holds images and is no split, and {folders['train']}/ beside it is one."
        raise files.wrong(root + other, no_split, f"Move it out of the data set; {rename}")
    chosen, notes = _test_split(files, root, named, train)
    test = class_groups(files, f"{root}{chosen}/", chosen)
    _check_same_classes(files, root, {named["train"]: train, chosen: test})
    return train, test, notes, named != folders


def _check_same_classes(files: Files, root: str, splits: dict[str, Groups]) -> None:
    """Raises InputError for a class that one of two splits lacks, and names a class there whose name differs in its writing alone."""
    first, second = splits
    for name in sorted(splits[first].keys() ^ splits[second].keys()):
        has, lacks = (first, second) if name in splits[first] else (second, first)
        alike = [other for other in splits[lacks] if _unwritten(other) == _unwritten(name)]
        differs = f", where {alike[0]!r} differs in case or in how its accents are encoded" if alike else ""
        tiny = " Tiny-ImageNet as it is published is read by data.format: tinyimagenet." if f"{root}wnids.txt" in files.sizes else ""
        missing = f"Class {name!r} is in {has}/ and missing here{differs}."
        raise files.wrong(f"{root}{lacks}/{name}", missing, f"Give both splits the same class folders.{tiny}")


def _unwritten(name: str) -> str:
    """The name without its case and the encoding of its accents."""
    return unicodedata.normalize("NFC", name).casefold()


def _test_split(files: Files, root: str, named: dict[str, str], train: Groups) -> tuple[str, list[str]]:
    """The folder of the test split, and a note on the folder that is left out: validation, or a test folder without classes."""
    if "test" not in named or "val" not in named:
        return named.get("test", named.get("val", "")), []
    test, val = named["test"], named["val"]
    if not train.keys() & _subfolders(files, f"{root}{test}/") and train.keys() & _subfolders(files, f"{root}{val}/"):
        return val, [f"{root}{test}/ has no class folders and was left out: {root}{val}/ is the test split."]
    return test, [f"{root}{val}/ was left out: {root}{test}/ is the test split."]


def _split_names(files: Files, root: str, top: set[str]) -> dict[str, str]:
    """The folder of each split: train, test, val. Raises InputError where two folders mean the same split, or none is for training."""
    folders: dict[str, str] = {}
    for folder, split in sorted(splits_of(top).items()):
        if folders.setdefault(split, folder) != folder:
            both = f"{folders[split]}/ and {folder}/ both say that they are the split {split!r}."
            raise files.wrong(root, both, "Keep one of them, or put them into one folder.")
    if "train" not in folders:
        do_next = "Name the training split's folder train; classes need names that are not a split's."
        raise files.wrong(root, f"{_listed(folders.values())} are splits, and none is for training.", do_next)
    return folders


def _listed(folders: Iterable[str]) -> str:
    return ", ".join(f"{folder}/" for folder in sorted(folders))


def _root(files: Files) -> str:
    """The folder with the class or split folders, "" or "…/". Archives often pack everything into a single folder, which is skipped."""
    root = ""
    while len(folders := _subfolders(files, root)) == 1 and not _has_loose_images(files, root):
        below = f"{root}{next(iter(folders))}/"
        if not _subfolders(files, below) or _has_loose_images(files, below):
            break
        root = below
    return root


def _has_loose_images(files: Files, root: str) -> bool:
    """Whether images lie in the folder itself."""
    return any(name.startswith(root) and "/" not in name[len(root) :] and is_image(name) for name in files.sizes)


def _subfolders(files: Files, root: str) -> set[str]:
    return {name[len(root) :] for name in files.folders if name.startswith(root) and "/" not in name[len(root) :]} - {""}
