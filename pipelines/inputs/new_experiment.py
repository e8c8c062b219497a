"""Writes an experiment for the user's own images: a first look at them, with settings that follow from the data and the machine."""

import json
import re
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from edm2core.config.fields import NAME
from edm2core.config.settings import DataSettings
from edm2core.data.files import open_files
from edm2core.data.formats.folders import class_folders, survey
from edm2core.data.split import ClassCount, enough_to_probe
from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.registry import EXTRACTORS
from pipelines.inputs.user_files import planned
from pipelines.run.places import gpus

EXPERIMENT = "experiment.yaml"
MOST_OPENED = 200  # images whose size and colours are looked at
GREY = ("1", "L", "LA")  # Pillow's modes of images without colours
SIDES = (8, 16, 32, 64)  # pixels that images are brought to


class Scale(NamedTuple):
    """How large a first look is on a kind of machine."""

    machine: str
    most_side: int  # pixels
    channels: int  # of the network's first level
    batch: int
    seen: int  # how many images a training sees, over all epochs
    samples: int


CPU = Scale("a CPU", 32, 32, 32, 40_000, 256)
GPU = Scale("a GPU", 64, 128, 256, 4_000_000, 5000)


def new_experiment(folder: Path, data: Path) -> Path:
    """Write an experiment for a folder or zip of images into a new folder, whose name becomes its name. Returns the experiment file.

    Raises InputError if the folder exists, if its name cannot be an experiment's, and if the images cannot be used.
    """
    if folder.exists() or folder.is_symlink():
        raise InputError(f"There is a {folder} already.", where=str(folder), do_next="Choose another name, or remove it.")
    if not re.match(NAME, folder.name):
        allowed = "Use up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit."
        raise InputError(f"'{folder.name}' cannot be an experiment's name.", where="NAME", do_next=allowed)
    values = _values(folder.name, data, GPU if gpus() else CPU)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        for name, text in TEXTS.items():
            (Path(temporary) / name).write_text(text.format_map(values), encoding="utf-8")
        planned(load_experiment(Path(temporary) / EXPERIMENT))  # all that can be checked before it runs
        shutil.copytree(temporary, folder)
    return folder / EXPERIMENT


def _values(name: str, data: Path, scale: Scale) -> dict[str, object]:
    """What TEXTS say of these images, by the names of their fields. Raises InputError if the images cannot be used."""
    if not data.exists():
        raise InputError(f"There is no {data}.", where="--data", do_next="Give a folder or a zip with a sub-folder for each class.")
    counts = survey(data, DataSettings.model_fields["test_share"].default).counts
    classes, train = [own.name for own in counts], sum(own.train for own in counts)
    short_side, image_channels = _sides_and_channels(data)
    side = max([SIDES[0], *(side for side in SIDES if side <= min(short_side, scale.most_side))])
    epochs = min(max(round(scale.seen / train), 2), 4000)
    epochs -= epochs % 2  # so that half of it is an epoch
    levels = [1, 2] if side < 32 else [1, 2, 2]
    measurable = train > EXTRACTORS["filters"].dimensions
    probe = "how well a linear classifier tells the classes apart by the network's features"
    why_no_probe = "one class" if len(classes) < 2 else "a class has too few images to train on and to test on"
    return {
        "name": name,
        "scale": scale,
        "epochs": epochs,
        "half": epochs // 2,
        "metrics": "fd_filters, precision_filters, recall_filters" if measurable else "",
        "features": "in features that need no download" if measurable else f"nothing: {train} images are too few to compare with",
        "probe": f"true  # {probe}" if _can_probe(counts) else f"false  # there is {why_no_probe}; true measures {probe}",
        "train": train,
        "test": sum(own.test for own in counts),
        "classes": len(classes),
        "shown": ", ".join(classes[:5]) + (", …" if len(classes) > 5 else ""),
        "source": json.dumps(str(data.resolve()), ensure_ascii=False),
        "side": side,
        "short_side": short_side,
        "brought": "enlarged" if side > short_side else "cropped to a square and brought to this side",
        "image_channels": image_channels,
        "colours": "grey" if image_channels == 1 else "in colour",
        "multipliers": json.dumps(levels),
        "lowest": side >> (len(levels) - 1),
        "batch": min(scale.batch, train),
        "warmup": max(epochs // 20, 1),
        "precision": "fp32  # bf16 is faster on a GPU" if scale is CPU else "bf16  # of the network alone",
        "average_every": max(epochs // 32, 1),
    }


def _sides_and_channels(data: Path) -> tuple[int, int]:
    """The median of the short sides of some of the images in pixels, and their channels. Raises InputError for one that cannot be read."""
    from PIL import Image  # the control image has no Pillow

    sides, modes = list[int](), set[str]()
    with open_files(data) as files:
        names = [name for group in class_folders(files).train.values() for name in group]
        for name in names[:: max(len(names) // MOST_OPENED, 1)]:
            try:
                with Image.open(BytesIO(files.read(name))) as image:
                    sides.append(min(image.size))
                    modes.add(image.mode)
            except OSError as error:
                raise files.wrong(name, f"The image cannot be read: {error}.", "Replace it, or remove it.") from error
    return round(statistics.median(sides)), 1 if modes <= {*GREY} else 3


def _can_probe(counts: Sequence[ClassCount]) -> bool:
    try:
        enough_to_probe(counts, False, "")
    except InputError:
        return False
    return len(counts) > 1


EXPERIMENT_TEXT = """\
# Written by `edm2 new`: a first look at these images with two recipes.
#   edm2 plan {name}/experiment.yaml --summary   what it takes
#   edm2 run {name}/experiment.yaml              run it; after an interruption the same command goes on
name: {name}
recipes: [E.yaml, G.yaml]  # what is compared: files beside this one
seeds: [0]  # [0, 1, 2] shows whether a difference is more than chance
epochs: [{half}, {epochs}]  # at which snapshots are sampled and measured
sample: {{count: {scale.samples}}}  # images drawn from each snapshot: more of them make the metrics surer
# Distances of the samples from the training images, {features}.
# FID, which papers report, is `fid`: it needs at least 2049 samples and images, and `inception_weights:`; `edm2 run` says where to get it.
metrics: [{metrics}]
probe: {probe}
"""

RECIPE_E = """\
# Config E of EDM2 on {train} training images; {test} are kept for test. {classes} classes: {shown}
# Settings that are not here are at their defaults: `edm2 recipes show {name}/E.yaml` prints all of them.
name: {name}/E
data:
  format: images
  source: {source}
  resolution: {side}  # the short side's median is {short_side} pixels: each image is {brought}
network:
  resolution: {side}
  image_channels: {image_channels}  # the images are {colours}
  classes: 0  # {classes} lets the network learn each class; 0 draws images of any class
  channels: {scale.channels}  # width of the first level: 128 and more on a GPU
  multipliers: {multipliers}  # width of each level, times `channels`
  blocks: 2
  attention_resolutions: [{lowest}]
  weights: forced  # weight normalisation, which E adds to config C
  clip: 256.0
training:
  epochs: {epochs}  # a first look on {scale.machine}; better samples take longer
  batch: {batch}
  lr: 1.0e-2
  warmup_epochs: {warmup}
  t_ref_epochs: {half}  # from this epoch on the learning rate falls
  flip: false  # true mirrors half of the images: right for most photographs, wrong for letters
  precision: {precision}
  average_every: {average_every}
probe:
  blocks: [out_3]  # the decoder block whose features are probed
"""

RECIPE_G = """\
# Config G: as E, with magnitude-preserving layers.
extends: E.yaml
name: {name}/G
network:
  norm: pixel
  magnitude_preserving: true
"""

TEXTS = {EXPERIMENT: EXPERIMENT_TEXT, "E.yaml": RECIPE_E, "G.yaml": RECIPE_G}
