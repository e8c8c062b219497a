"""Data sets that the user's own code reads or makes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edm2core.config.settings import DataSettings
from edm2core.data.file_kinds import wrong
from edm2core.data.split import Images, divided
from edm2core.errors import InputError
from edm2core.registry import load, own_arguments


class Format(Protocol):
    """A reader of one's own, which may have settings of its own as keyword arguments."""

    def __call__(self, source: Path | None, /) -> tuple[NDArray[np.uint8], NDArray[np.int64], Sequence[str]]:
        """Images uint8 [N, C, H, W], square and all of one shape; their classes, int64 [N]; and the classes' names.

        `source` is the file or folder that `data.source` names, or None: the code may make images instead. The same source and settings
        give the same images. `data.test_share` of each class becomes the test split.
        """


def read_own(source: Path | None, settings: DataSettings) -> Images:
    """The data set that the own code gives. Raises InputError, which names the code, if it gives no such arrays."""
    read = load(settings.format)
    given = read(source, **own_arguments(read, settings.own))

    def refuse(what: str) -> InputError:
        do_next = "Return (images uint8 [N, C, H, W], labels int64 [N], names of the classes)."
        return wrong(settings.format, f"The own format gave {what}.", do_next)

    if not isinstance(given, tuple) or len(given) != 3:
        raise refuse(f"a {type(given).__name__}, not three things")
    images, labels, classes = np.asarray(given[0]), np.asarray(given[1]), tuple(map(str, given[2]))
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise refuse(f"images of {images.dtype} {list(images.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != (len(images),):
        raise refuse(f"labels of {labels.dtype} {list(labels.shape)} for {len(images)} images")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise refuse(f"labels from {labels.min()} to {labels.max()} for {len(classes)} classes")
    return divided(images, labels.astype(np.int64), classes, settings.test_share, settings.format)
