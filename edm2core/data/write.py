"""Writes the prepared form: arrays, and dataset.json, which describes them."""

import json
import shutil
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray

from edm2core.config.settings import DataSettings
from edm2core.data.file_kinds import wrong
from edm2core.data.files import open_files
from edm2core.data.prepared import INFO
from edm2core.data.split import Images, Split
from edm2core.errors import EdmError
from edm2core.registry import FORMATS, is_own, load

SIGMA_DATA = 0.5
TOLERANCE = 0.2  # relative, of the standard deviation that the diffusion model assumes

Progress = Callable[[int, int], None]  # is told how many images are done, and how many there are in all


def prepare_data(
    settings: DataSettings, source: Path | None, out: Path, progress: Progress = lambda done, total: None, revised: bool = True
) -> dict[str, Any]:
    """Write the prepared form of `source` (what `fetch` returned) into the folder `out`, which is new or empty; returns dataset.json.

    train_images.npy, test_images.npy: uint8 [N, C, H, W]; train_labels.npy, test_labels.npy: int64 [N]. dataset.json: format, classes,
    shape [C, H, W], counts {train, test, per_class {train, test}}, mean and std (per channel, of the training images in [0, 1]),
    affine {scale, offset} to the network's scale, network_std (over all pixels there), warning (text or null).
    `revised` says that the plan was made for the reader's second version. Without it, images that the first version read differently
    are refused.
    `out` appears whole or not at all. Raises InputError naming the file that is wrong, EdmError where `out` cannot be written.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise wrong(out, "The folder for the prepared data is not empty.", "Give a new folder, or remove this one.")
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        part.mkdir(parents=True)
        own = is_own(settings.format)
        with nullcontext() if source is None or own else open_files(source) as files:
            images: Images = load(FORMATS[settings.format].read)(source if own else files, settings)
            if settings.resolution not in (None, images.shape[-1]):
                sides = f"{settings.format} has images of side {images.shape[-1]}."
                raise wrong(f"data.resolution: {settings.resolution}", sides, "Remove the setting.")
            if images.revised and not revised:
                changed = "These images are read otherwise than when this was planned (their transparency, classes or names)."
                do_next = "Run the experiment again by `edm2 run` or `edm2 submit`, which plan it anew."
                raise wrong(f"data.source: {settings.source}", changed, do_next)
            info = _write(settings, images, part, progress)
        part.rename(out)
    except OSError as error:
        failure = f"The prepared data cannot be written: {error.strerror or error}."
        do_next = "Free some space, or check the folder's permissions."
        raise EdmError(failure, where=str(out), do_next=do_next, permanent=False) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return info


def _write(settings: DataSettings, images: Images, folder: Path, progress: Progress) -> dict[str, Any]:
    source, splits = f"data.source: {settings.source}", {"train": images.train, "test": images.test}
    counts = {part: len(split.labels) for part, split in splits.items()}
    total = sum(counts.values())
    if not counts["train"]:
        raise wrong(source, "It has no training images.", "Check the source and data.format.")
    histogram = _write_split(folder, "train", images.train, images.shape, lambda done: progress(done, total))
    _write_split(folder, "test", images.test, images.shape, lambda done: progress(counts["train"] + done, total))

    means, stds = zip(*(_moments(row) for row in histogram), strict=True)
    mean, std = _moments(histogram.sum(axis=0))
    if settings.standardize and std == 0:
        raise wrong(source, "All pixels are equal and cannot be standardised.", "Check the images.")
    scale, offset = (SIGMA_DATA / std, -mean * SIGMA_DATA / std) if settings.standardize else (2.0, -1.0)
    notes = list(images.notes)
    if abs(std * scale / SIGMA_DATA - 1) > TOLERANCE:
        notes.append(
            f"The standard deviation at the network's scale is {std * scale:.3f}, more than {TOLERANCE:.0%} off the {SIGMA_DATA} "
            "that the diffusion model assumes: consider data.standardize: true."
        )
    per_class = {part: np.bincount(split.labels, minlength=len(images.classes)).tolist() for part, split in splits.items()}
    info: dict[str, Any] = {
        "format": settings.format,
        "classes": list(images.classes),
        "shape": list(images.shape),
        "counts": {**counts, "per_class": per_class},
        "mean": list(means),
        "std": list(stds),
        "affine": {"scale": scale, "offset": offset},
        "network_std": std * scale,
        "warning": " ".join(notes) or None,
    }
    (folder / INFO).write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return info


def _write_split(folder: Path, part: str, split: Split, shape: tuple[int, int, int], progress: Callable[[int], None]) -> NDArray[np.int64]:
    """Write images and labels; returns how often each value occurs in each channel, int64 [C, 256].

    Images are written as a stream, not through a memory map, where a full disk would kill the process instead of raising.
    """
    np.save(folder / f"{part}_labels.npy", split.labels)
    histogram = np.zeros((shape[0], 256), dtype=np.int64)
    done = 0
    with (folder / f"{part}_images.npy").open("wb") as file:
        write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (len(split.labels), *shape)})
        for block in split.images:
            file.write(np.ascontiguousarray(block).data)
            for channel, row in enumerate(histogram):
                row += np.bincount(block[:, channel].ravel(), minlength=256)
            done += len(block)
            progress(done)
    return histogram


def _moments(histogram: NDArray[np.int64]) -> tuple[float, float]:
    """Mean and standard deviation, at the [0, 1] scale, of values that occur this often; exact sums, so the same everywhere."""
    counts = [int(count) for count in histogram]
    n = sum(counts)
    first = sum(value * count for value, count in enumerate(counts))
    second = sum(value * value * count for value, count in enumerate(counts))
    return first / n / 255, (second * n - first * first) ** 0.5 / n / 255
