"""What it costs to compare samples with a data set: plain through PNGs and torch-fidelity, the product straight from its shards."""

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import calculate_metrics
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from bench.compare import Side, Spread, in_turn, ratio
from bench.rows import Options, Result, Row
from bench.worker import Work
from edm2core.data.degenerate import checked
from edm2core.diffusion.devices import pick_device
from edm2core.metrics.compared import Compared
from edm2core.metrics.extraction import IMAGES_AT_ONCE, extract
from edm2core.metrics.extractors import inception
from edm2core.metrics.names import Metric
from edm2core.metrics.statistics import Reference, ReferenceInfo
from edm2core.metrics.values import metric_values
from edm2core.registry import EXTRACTORS

SHARD = 64
INCEPTION = EXTRACTORS["inception"]
METRICS = ("precision", "recall", "density", "coverage", "memorisation")


def counts() -> tuple[int, int]:
    """Samples and training images: Inception takes a twentieth of a second of a core for each, and nothing of a GPU."""
    return (4096, 8192) if torch.cuda.is_available() else (64, 64)


def plain_passes(samples: int, training: int) -> Work:
    """PNGs written, then read by torch-fidelity, which extracts the data set's images too: precision and recall."""
    folder = Path(tempfile.mkdtemp())
    torch.save(_weights(), folder / "weights.pth")
    real, drawn = _images(training, 1), _images(samples, 0)
    _as_png(real, folder / "real")

    def work() -> None:
        _as_png(drawn, folder / "drawn")
        calculate_metrics(
            input1=str(folder / "drawn"),
            input2=str(folder / "real"),
            prc=True,
            feature_extractor=INCEPTION.library_name,
            feature_extractor_weights_path=str(folder / "weights.pth"),
            feature_layer_prc=INCEPTION.layer,
            batch_size=IMAGES_AT_ONCE[pick_device().type],
            cuda=torch.cuda.is_available(),
            cache=False,
            verbose=False,
        )

    return work


def product_pass(samples: int, training: int) -> Work:
    """The stage's own way: one pass over the shards for all metrics, with what is stored of the data set."""
    module, shards, device = _extractor(), _shards(samples), pick_device()
    features = np.random.default_rng(1).random((training, INCEPTION.dimensions), dtype=np.float32)
    stored = Reference(None, ReferenceInfo(training, "inception", "", ""), features)

    def work() -> None:
        found = extract(module, checked(_read(shards), "samples"), device)
        metric_values([Metric(name, "inception") for name in METRICS], Compared(found, stored, device))

    return work


def product_extract(samples: int) -> Work:
    """Reading, checking and extracting, as the stages do it."""
    module, shards = _extractor(), _shards(samples)
    return lambda: _forget(extract(module, checked(_read(shards), "samples"), pick_device()))


def bare_extractor(samples: int) -> Work:
    """The network alone, on images that are on its device."""
    device = pick_device()
    module, batches = _extractor().to(device), torch.from_numpy(_images(samples, 0)).to(device).split(IMAGES_AT_ONCE[device.type])

    def work() -> None:
        with torch.inference_mode():
            _forget([module(images)[0] for images in batches][-1].cpu())

    return work


def _forget(_: object) -> None:
    """What is timed returns nothing."""


def _extractor() -> nn.Module:
    module: nn.Module = inception.build(_weights()).eval().requires_grad_(False)
    return module


def _weights() -> dict[str, Tensor]:
    """Inception as torch starts it: speed does not depend on the numbers."""
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    torch.manual_seed(0)
    with patch.object(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None):
        module = FeatureExtractorInceptionV3(INCEPTION.library_name, [INCEPTION.layer], feature_extractor_weights_path=nothing)
    weights: dict[str, Tensor] = module.state_dict()
    return weights


def _images(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def _as_png(images: NDArray[np.uint8], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number:06d}.png")


def _shards(count: int) -> list[Path]:
    folder, images = Path(tempfile.mkdtemp()), _images(count, 0)
    for begin in range(0, count, SHARD):
        np.save(folder / f"{begin:06d}.npy", images[begin : begin + SHARD])
    return sorted(folder.iterdir())


def _read(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        yield np.load(path, mmap_mode="r", allow_pickle=False)


def _metrics(options: Options) -> Result:
    samples, training = counts()
    given = {"samples": samples, "training": training}
    sides = {
        "plain": Side("bench.evaluation:plain_passes", given, options.bare),
        "product": Side("bench.evaluation:product_pass", given, options.tuned),
    }
    found = in_turn(sides, options.repeats)
    plain, product = (Spread.of([samples / run["seconds"] for run in found[side]]) for side in sides)
    cpu = f"{ratio(found, 'plain', 'product', 'cpu_seconds').text()}×"
    return Result(f"{ratio(found, 'plain', 'product').text()}×", f"{plain.text(1)} samples/s", f"{product.text(1)} samples/s", cpu=cpu)


def extracting(options: Options) -> Result:
    """Reading, checking and extracting against the network alone."""
    samples = 8 if options.rehearsal else counts()[0]
    sides = {
        "product": Side("bench.evaluation:product_extract", {"samples": samples}, options.tuned),
        "bare": Side("bench.evaluation:bare_extractor", {"samples": samples}, options.tuned),
    }
    found = in_turn(sides, options.repeats)
    product, bare = (Spread.of([samples / run["seconds"] for run in found[side]]) for side in sides)
    cpu = ratio(found, "bare", "product", "cpu_seconds").text()
    return Result(
        f"{ratio(found, 'bare', 'product').text()} of the bare network", f"{bare.text(1)} images/s", f"{product.text(1)} images/s", cpu=cpu
    )


ROWS = [
    Row(
        "metrics",
        "precision, recall, density, coverage and memorisation of samples; plain: the first two, with as many or more training images",
        "one pass, no PNGs, no second look at the data set",
        _metrics,
    ),
    Row(
        "extractor",
        "reading, checking and extracting samples, Inception; plain: the network alone, on images that are on its device",
        "≥ 0.9",
        extracting,
    ),
]
