"""Archives as the dataset_tool.py of NVlabs (StyleGAN2-ADA to EDM2) writes them: 00000/img00000000.png and dataset.json with labels."""

import json
import re
import reprlib
from collections import defaultdict
from typing import Any

from edm2core.data.file_kinds import wrong
from edm2core.data.files import Files
from edm2core.errors import InputError

LABELS = "dataset.json"
ALL = "all"  # the one class of images without labels
_NAME = re.compile(r"\d{5}/img\d{8}\.\w+")
_LATENTS = re.compile(r"\d{5}/img-mean-std-latents-\d{8}\.npy")


def is_nvlabs(files: Files, root: str, images: list[str]) -> bool:
    """Whether the source is such an archive: by dataset.json with `labels`, or by the images' names. Raises InputError for latents."""
    if any(_LATENTS.fullmatch(name[len(root) :]) for name in files.sizes if name.startswith(root) and name.endswith(".npy")):
        latents = "It holds latents of an autoencoder, as `dataset_tool.py encode` writes them, and no images."
        raise files.wrong("", latents, "Give the archive that `encode` was run on, or the images themselves.")
    by_name = bool(images) and all(_NAME.fullmatch(name[len(root) :]) for name in images)
    return by_name or "labels" in (_content(files, root) or {})


def labelled(files: Files, root: str, images: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The images by label, ascending, and notes. Where the archive has no labels all images are of one class.

    dataset.json has pairs of a file and its label, an integer or a one-hot vector; or null. Raises InputError for labels that are no
    classes, for an image without a label and for a label without an image.
    """
    where = files.where(root + LABELS)
    if (content := _content(files, root)) is None:
        raise _bad("the file is no object in JSON", where)
    if not images:
        raise wrong(where, "It names the labels of images, and there are none.", "Give the archive with its images.")
    labels = content.get("labels")
    if not labels:
        return {ALL: sorted(images)}, [f"The archive has no labels (dataset_tool.py of NVlabs): all images are of one class, {ALL!r}."]
    try:
        pairs = [(f"{root}{name}".replace("\\", "/"), label) for name, label in (labels.items() if isinstance(labels, dict) else labels)]
    except (TypeError, ValueError):
        raise _bad("labels are no pairs of a file's name and its label", where) from None
    by_name = dict(pairs)
    if twice := sorted(name for name, label in pairs if repr(by_name[name]) != repr(label)):
        raise _bad(f"there are two labels of {twice[0][len(root) :]!r}", where)
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for name in sorted(images):
        if name not in by_name:
            raise _bad(f"there is no label of {name[len(root) :]!r}", where)
        groups[_class(by_name[name], name, where)].append(name)
    if missing := sorted(by_name.keys() - set(images)):
        raise _bad(f"the image {missing[0][len(root) :]!r} is missing, of which there is a label", where)
    return {str(label): groups[label] for label in sorted(groups)}, []


def _class(label: Any, name: str, where: str) -> int:
    if isinstance(label, list):
        if sorted(label, key=lambda value: value != 0) != [0] * (len(label) - 1) + [1]:
            raise _bad(f"the label of {name!r} is a vector that is no one-hot class", where)
        return label.index(1)
    if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label < 2**31 or label != int(label):
        raise _bad(f"the label of {name!r} is {reprlib.repr(label)}, which is no class", where)
    return int(label)


def _content(files: Files, root: str) -> dict[str, Any] | None:
    """The content of dataset.json: empty if there is no such file, None if it is not a JSON object."""
    if root + LABELS not in files.sizes:
        return {}
    try:
        content = json.loads(files.read(root + LABELS))
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _bad(problem: str, where: str) -> InputError:
    do_next = f"Write the archive again with NVlabs' dataset_tool.py; or take {LABELS} out, if it is another program's."
    return wrong(where, f"The labels cannot be used: {problem}.", do_next)
