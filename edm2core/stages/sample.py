"""Draws images from a snapshot, shard by shard. Every image has its own noise, so the numbers do not depend on how work is split."""

import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.compiling import adopt, wanted
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.devices import DTYPES, autocast, compute, pick_device
from edm2core.diffusion.folding import prepare_for_inference
from edm2core.diffusion.latents import between, drawn_labels, latents
from edm2core.diffusion.noise_levels import levels_of
from edm2core.diffusion.sampler import Guidance, draw, to_uint8
from edm2core.diffusion.solvers import Noise, Solver, checked, evaluated_levels
from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.registry import SOLVERS, is_own, load
from edm2core.snapshots import files as snapshot
from edm2core.worker import signals
from edm2core.worker.energy import joules_used
from edm2core.worker.main import main
from edm2core.worker.workspace import Input, Workspace

GRID, GRID_SIDE, GRID_PIXELS = "grid.png", 8, 384
INTERPOLATIONS, ARCS = "interpolations.png", 6
CLASSES, MOST_CLASSES = "classes.png", 10
POLL_S = 1.0


class Drawing(NamedTuple):
    """What it took one process to draw images, without compiling the network and writing files."""

    images: int
    seconds: float
    joules: float | None  # that its GPU used meanwhile; None where nothing tells
    images_per_s: float  # over all processes, with compiling and writing


def run(work: Workspace) -> None:
    """Result: samples-00000.npy …, uint8 [n, C, H, W], in the order of the images' indices; a grid of the first; interpolations.

    Interpolations are made of the first draw alone, and are no samples. So is a grid with a row a class, where the network knows classes.
    """
    settings = SampleSettings.model_validate({name: value for name, value in work.settings.items() if name != "draw"})
    shards = _shards(settings)
    missing = [shard for shard in range(work.rank, shards, work.world_size) if not _restore(work, settings, shard)]
    interpolating = work.rank == 0 and work.settings["draw"] == 0
    denoiser, guide = _networks(work, settings) if missing or interpolating else (None, None)
    drawing = _draw_shards(work, settings, missing, denoiser, guide) if denoiser and missing else None
    if work.rank:
        return
    if denoiser and interpolating:
        write_grid(work.out / INTERPOLATIONS, interpolations(denoiser, settings, guide))
    others = [shard for shard in range(shards) if shard % work.world_size]
    while others := [shard for shard in others if not _restore(work, settings, shard)]:
        work.progress(shards - len(others), shards, unit="shards")
        time.sleep(POLL_S)
    loaded = (np.load(work.out / shard_name(shard), mmap_mode="r", allow_pickle=False) for shard in range(shards))
    first = islice((image for images in loaded for image in images), GRID_SIDE**2)
    write_grid(work.out / GRID, np.stack(list(first)))
    if denoiser and interpolating and (classes := denoiser.network.settings.classes):
        write_grid(work.out / CLASSES, rows_by_class(work.out, settings, classes))
    work.metadata |= {
        "n": settings.count,
        "seed": settings.seed,
        "draw": work.settings["draw"],
        "steps": settings.steps,
        "nfe": _evaluations(settings),
        "ema": settings.ema[0],
        "images_per_s": drawing.images_per_s if drawing else None,
    }
    if drawing:
        work.metadata["drawing"] = {"images": drawing.images, "seconds": round(drawing.seconds, 3), "joules": drawing.joules}


def shard_name(shard: int) -> str:
    return f"samples-{shard:05d}.npy"


def indices_of(settings: SampleSettings, shard: int) -> range:
    return range(shard * settings.shard, min((shard + 1) * settings.shard, settings.count))


def piece_name(settings: SampleSettings, shard: int) -> str:
    """The name of a finished shard in the scratch, by the images that it holds, since no key holds the shard's size."""
    indices = indices_of(settings, shard)
    return f"images-{indices.start}-{indices.stop}"


def shard_names(files: Iterable[str]) -> list[str]:
    """The shards among a result's files, in the order of their images."""
    return sorted(name for name in files if re.fullmatch(r"samples-\d{5,}\.npy", name))


def shards_of(samples: Input) -> Iterator[NDArray[np.uint8]]:
    """The images of a result of this stage, shard by shard: uint8 [n, C, H, W]."""
    for name in shard_names(samples.manifest.files):
        yield np.load(samples.path(name), mmap_mode="r", allow_pickle=False)


def draw_images(
    denoiser: Denoiser, settings: SampleSettings, draw: int, indices: Sequence[int], guide: Denoiser | None = None
) -> NDArray[np.uint8]:
    """The images with these indices, uint8 [n, C, H, W]. Each follows from (seed, draw, its index), whatever is drawn beside it.

    `guide` is the network that the settings' guidance names, if it names one.
    Raises EdmError for a value that is not finite, which would be black in uint8.
    """
    start, labels = _beginning(denoiser, settings, draw, indices)
    noise = lambda step: latents(settings.seed, draw, indices, start.shape[1:], step + 1)  # noqa: E731
    return _images(denoiser, settings, start, labels, noise, guide)


def _beginning(denoiser: Denoiser, settings: SampleSettings, draw: int, indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """The latents of the images with these indices, and their classes if the network is class-conditional."""
    network = denoiser.network.settings
    start = latents(settings.seed, draw, indices, (network.image_channels, network.resolution, network.resolution))
    return start, drawn_labels(settings.seed, draw, indices, network.classes) if network.classes else None


def interpolations(denoiser: Denoiser, settings: SampleSettings, guide: Denoiser | None = None) -> NDArray[np.uint8]:
    """Rows of 8 images, uint8 [48, C, H, W]. Each row goes from one of the grid's first images to another, on the arc between both latents.

    A row's images are of the class of its first. There is no churn, since nothing lies between two noises; a solver of own code, which may
    have no such setting, gets the same noise for all images.
    """
    ends, classes = _beginning(denoiser, settings, 0, range(2 * ARCS))
    start = between(ends[0::2], ends[1::2], [step / (GRID_SIDE - 1) for step in range(GRID_SIDE)]).flatten(0, 1)
    labels = None if classes is None else classes[0::2].repeat_interleave(GRID_SIDE)
    still = settings.model_copy(update={"eta": 0.0})
    parts = [slice(begin, begin + settings.batch) for begin in range(0, len(start), settings.batch)]
    shared = (lambda step: latents(settings.seed, 0, [0], start.shape[1:], step + 1)) if is_own(settings.solver) else None
    classes_of = [None if labels is None else labels[part] for part in parts]
    rows = [_images(denoiser, still, start[part], own, shared, guide) for part, own in zip(parts, classes_of, strict=True)]
    return np.concatenate(rows)


def rows_by_class(folder: Path, settings: SampleSettings, classes: int) -> NDArray[np.uint8]:
    """The first draw's first 8 images of each class, a row a class, uint8 [8 · rows, C, H, W]; black where there are fewer.

    Of more than MOST_CLASSES classes as many are taken, evenly spaced.
    """
    chosen = np.unique(np.linspace(0, classes - 1, MOST_CLASSES).round().astype(int)) if classes > MOST_CLASSES else np.arange(classes)
    labels = drawn_labels(settings.seed, 0, range(min(settings.count, GRID_SIDE**2 * classes)), classes).numpy()
    shards = [np.load(folder / shard_name(shard), mmap_mode="r", allow_pickle=False) for shard in range(_shards(settings))]
    rows = np.zeros((len(chosen), GRID_SIDE, *shards[0].shape[1:]), np.uint8)
    for row, label in zip(rows, chosen, strict=True):
        for place, index in enumerate(np.flatnonzero(labels == label)[:GRID_SIDE]):
            row[place] = shards[index // settings.shard][index % settings.shard]
    return rows.reshape(-1, *rows.shape[2:])


def _shards(settings: SampleSettings) -> int:
    return math.ceil(settings.count / settings.shard)


def _images(
    denoiser: Denoiser, settings: SampleSettings, start: Tensor, labels: Tensor | None, noise: Noise | None, guide: Denoiser | None
) -> NDArray[np.uint8]:
    device = next(denoiser.parameters()).device
    labels = None if labels is None else labels.to(device)
    solver = _solver(settings)
    asked = settings.guidance
    guidance = None if asked is None else Guidance(asked.weight, guide, asked.interval or (0.0, math.inf))
    with autocast(device.type, settings.precision):
        images = draw(
            *(denoiser, start.to(device), levels_of(settings), solver),
            clip=settings.clip,
            state=DTYPES[settings.state],
            noise=noise,
            labels=labels,
            guidance=guidance,
        )
    if bad := int((~images.flatten(1).isfinite().all(1)).sum()):
        raise EdmError(
            f"{bad} of {len(images)} images drawn together are not finite: the network gives no numbers.",
            where=f"sample.precision: {settings.precision}, sample.ema: {settings.ema[0]}",
            do_next="Sample in fp32, as fp16 overflows first. If it stays, the training has diverged: look at its loss.",
        )
    drawn: NDArray[np.uint8] = to_uint8(images).cpu().numpy()
    return drawn


def _solver(settings: SampleSettings) -> Solver:
    """The solver with its settings. What own code returns is checked, so that its author is told what is wrong with it."""
    solver = partial(load(SOLVERS[settings.solver].solve), **settings.options_of("solver"))
    return checked(settings.solver, solver) if is_own(settings.solver) else solver


def _evaluations(settings: SampleSettings) -> int:
    """How often the network is evaluated for an image; each guided evaluation counts double. Those of own code are counted."""
    if not is_own(settings.solver):
        return settings.evaluations
    levels = evaluated_levels(_solver(settings), levels_of(settings).tolist())
    return len(levels) + (sum(map(settings.guidance.applies_at, levels)) if settings.guidance else 0)


def _networks(work: Workspace, settings: SampleSettings) -> tuple[Denoiser, Denoiser | None]:
    """The network that is sampled from, and the one that guides it, if another does."""
    compute(tf32=not settings.exact, deterministic=settings.exact)
    guide = settings.guidance.guide if settings.guidance else None
    return _ready(work, "snapshot", settings.ema[0]), _ready(work, "guide", guide.ema or settings.ema[0]) if guide else None


def _ready(work: Workspace, name: str, ema: str) -> Denoiser:
    """The denoiser of one of the inputs, on the device."""
    denoiser = prepare_for_inference(snapshot.load(work.inputs[name].all(), ema), pick_device())
    denoiser.register_forward_pre_hook(lambda *_: signals.stop_if_asked())  # a batch can take minutes on a CPU
    return denoiser


def _draw_shards(work: Workspace, settings: SampleSettings, shards: list[int], denoiser: Denoiser, guide: Denoiser | None) -> Drawing:
    """Draw and keep this process's unfinished shards."""
    parts = {shard: indices_of(settings, shard) for shard in shards}
    total, started, drawing = sum(map(len, parts.values())), time.monotonic(), Drawing(0, 0.0, 0.0, 0.0)
    decided = settings.exact  # whether to compile
    for shard, indices in parts.items():
        batches = []
        for begin in range(0, len(indices), settings.batch):
            some = indices[begin : begin + settings.batch]
            images, drawing = _measured(partial(draw_images, denoiser, settings, work.settings["draw"], some, guide), drawing)
            batches.append(images)
            done, seconds = drawing.images, time.monotonic() - started
            drawing = drawing._replace(images_per_s=round(done * work.world_size / seconds, 2))
            left_s = (total - done) * seconds / done
            work.progress(done, total, unit="images", images_per_s=drawing.images_per_s, eta_s=round(left_s))
            if not decided and wanted(settings.compile, pick_device(), left_s, "sampling"):
                decided = True
                compile_network(denoiser, settings, min(settings.batch, total - done))
        path = work.out / shard_name(shard)
        np.save(path, np.concatenate(batches))
        work.scratch.put(piece_name(settings, shard), path)
    return drawing


def _measured(draw: Callable[[], NDArray[np.uint8]], before: Drawing) -> tuple[NDArray[np.uint8], Drawing]:
    """The images that `draw` gives, and `before` with what drawing them took added."""
    device, started = pick_device(), time.monotonic()
    energy = joules_used(device)
    images = draw()  # back on the CPU, so the device has finished
    seconds, later = time.monotonic() - started, joules_used(device)
    joules = None if energy is None or later is None or before.joules is None else before.joules + later - energy
    return images, before._replace(images=before.images + len(images), seconds=before.seconds + seconds, joules=joules)


def compile_network(denoiser: Denoiser, settings: SampleSettings, size: int, **options: Any) -> None:
    """Compile the network for batches of `size`, on a GPU into a CUDA graph, if it then denoises the same at three noise levels."""
    device = next(denoiser.parameters()).device
    noise, labels = _beginning(denoiser, settings, 0, range(size))
    noise, labels = noise.to(device), None if labels is None else labels.to(device)

    def run() -> list[Tensor]:
        with torch.no_grad(), autocast(device.type, settings.precision):
            return [denoiser(noise * sigma, sigma, labels) for sigma in (settings.sigma_max, 1.0, settings.sigma_min)]

    outcome = adopt(denoiser.network, size, run, settings.precision, **(options or {"mode": "reduce-overhead"}))
    emit("compiled" if outcome.adopted else "warning", message=outcome.words)


def _restore(work: Workspace, settings: SampleSettings, shard: int) -> bool:
    """Whether a shard is finished. Rank 0 then has it among its results."""
    folder, target = work.out.parent / "shards", work.out / shard_name(shard)
    folder.mkdir(exist_ok=True)
    finished = work.scratch.get(piece_name(settings, shard), folder)
    if finished is not None and work.rank == 0:
        try:
            os.link(finished, target)
        except OSError:  # another file system
            shutil.copyfile(finished, target)
    return finished is not None


def write_grid(path: Path, images: NDArray[np.uint8]) -> None:
    """Write images uint8 [n, 1 or 3, H, W] as a PNG in rows of 8. Small ones are enlarged without smoothing, for a person to see."""
    n, channels, height, width = images.shape
    rows = math.ceil(n / GRID_SIDE)
    tiles = np.zeros((rows * GRID_SIDE, channels, height, width), np.uint8)
    tiles[:n] = images
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=128)  # a line between images that fill their frame
    height, width = height + 1, width + 1
    picture = (
        tiles.reshape(rows, GRID_SIDE, channels, height, width).transpose(0, 3, 1, 4, 2).reshape(rows * height, GRID_SIDE * width, channels)
    )
    scale = math.ceil(GRID_PIXELS / (GRID_SIDE * width))
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    Image.fromarray(picture[:, :, 0] if channels == 1 else picture).save(path, optimize=True)


if __name__ == "__main__":
    main("sample", run)
