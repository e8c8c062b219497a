"""Draws images from a denoiser, and brings images of any origin to one form."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edm2.own_code import with_own_solver
from edm2core.config.fields import OWN
from edm2core.config.settings import SampleSettings
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import Document, Origin
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.errors import InputError
from edm2core.stages.sample import draw_images, write_grid


def sample(
    denoiser: Denoiser,
    count: int = 64,
    *,
    draw: int = 0,
    guide: Denoiser | None = None,
    code: str | Path | None = None,
    **settings: Any,
) -> NDArray[np.uint8]:
    """Images uint8 [count, C, H, W] of a denoiser, on a GPU if there is one.

    `settings` are those of a recipe's `sample` section, such as steps, seed, eta and batch. Each image follows from seed, draw and its
    index alone, so the first images of a run's samples are these images. `guide` is the network that guides, with
    `guidance={"weight": 1.5}`. An own solver is named as in an experiment, such as solver="my_solvers:euler_ancestral", eta=0.5,
    and `code` is the folder that it lies in, by default the working directory. Raises InputError for a setting that is unknown or
    impossible, for own code that is not there, and for guidance without its guide.
    """
    where = Origin("the arguments of edm2.sample")
    if OWN in settings:
        raise InputError(unknown("setting", OWN, OWN, sorted(SampleSettings.model_fields.keys() - {OWN})), where=str(where))
    given = with_own_solver(settings, None if code is None else Path(code), where)
    chosen = build(SampleSettings, Document({**given, "count": count}, {(): where}))
    if guide is None and chosen.guidance and chosen.guidance.guide:
        raise InputError(
            "These settings name a guide, and its network was not given.",
            where="sample.guidance.guide",
            do_next="Give it: edm2.sample(…, guide=run.snapshot(…), guidance={'weight': 1.5}).",
        )
    if guide is not None and not chosen.guidance:
        raise InputError("A guide was given, and no weight of guidance.", where="guide", do_next="Add guidance={'weight': 1.5}.")
    ready, guiding = _ready(denoiser), None if guide is None else _ready(guide)
    batches = [range(begin, min(begin + chosen.batch, count)) for begin in range(0, count, chosen.batch)]
    return np.concatenate([draw_images(ready, chosen, draw, batch, guiding) for batch in batches])


def _ready(denoiser: Denoiser) -> Denoiser:
    """A copy on the device that draws, since getting a network ready changes its weights."""
    return prepare_for_inference(copy.deepcopy(denoiser), pick_device())


def write_images(path: str | Path, images: Any) -> None:
    """Write images as a picture in rows of 8 (.png), or as an array (.npy). Raises InputError as `as_images` does."""
    array = as_images(images, "images")
    if Path(path).suffix == ".npy":
        np.save(path, array)
    else:
        write_grid(Path(path), array)


def as_images(given: Any, whose: str) -> NDArray[np.uint8]:
    """Images as uint8 [N, C, H, W], from an array or tensor of that shape: uint8, or float in [0, 1].

    Raises InputError, which says what is wrong with the shape, the type or the range, and how to mend it.
    """
    array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else np.asarray(given)

    def wrong(what: str, do_next: str) -> InputError:
        return InputError(what, where=whose, do_next=do_next)

    if array.ndim != 4:
        one = "Add the first dimension: images[None]." if array.ndim == 3 else "Give images as [N, C, H, W]."
        raise wrong(f"Images have four dimensions, [N, C, H, W]; these have the shape {list(array.shape)}.", one)
    if array.shape[1] not in (1, 3):
        last = array.shape[3] in (1, 3)
        mend = "Move the channels to the second place: images.transpose(0, 3, 1, 2)." if last else "Give grey or RGB images."
        raise wrong(f"Images have 1 or 3 channels in the second place; these have the shape {list(array.shape)}.", mend)
    if not len(array):
        raise wrong("There are no images.", "Give one at least.")
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise wrong(f"Images are uint8, or floats in [0, 1]; these are {array.dtype}.", "Convert them: images.astype(numpy.uint8).")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        mend = "Bring images in [-1, 1] to [0, 1]: (images + 1) / 2." if low >= -1 and high <= 1 else "Divide or clip them."
        raise wrong(f"Images of floats lie in [0, 1]; these lie in [{low:g}, {high:g}].", mend)
    rounded: NDArray[np.uint8] = np.round(array * 255).astype(np.uint8)
    return rounded
