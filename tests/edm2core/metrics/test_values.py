"""Against torch-fidelity: its functions on the same features, and its command on folders of PNG files."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch_fidelity import calculate_metrics, fidelity
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from edm2core.errors import InputError
from edm2core.metrics import kernel_distance
from edm2core.metrics.compared import Compared
from edm2core.metrics.extraction import extract
from edm2core.metrics.extractors import inception
from edm2core.metrics.extractors.digits import DigitsFeatures
from edm2core.metrics.names import Metric
from edm2core.metrics.statistics import Reference, ReferenceInfo, statistics
from edm2core.metrics.values import metric_values
from edm2core.registry import METRICS

CPU = torch.device("cpu")
Blobs = Callable[..., np.ndarray]
IMAGES = 2100  # Inception's covariance needs 2049
SUBSETS = 10  # of the kernel distance, which has 100 of them: test_kernel_distance.py compares those


@pytest.fixture
def few_subsets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_distance, "SUBSETS", SUBSETS)


def features(n: int, dimensions: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mixed = generator.standard_normal((n, dimensions)) @ np.random.default_rng(0).standard_normal((dimensions, dimensions))
    return (mixed + 0.1 * generator.standard_normal(dimensions)).astype(np.float32)


def reference(real: np.ndarray) -> Reference:
    return Reference(statistics(real), ReferenceInfo(len(real), "inception", "", ""), real)


def values(names: list[str], extractor: str, found: np.ndarray, real: np.ndarray, logits: Tensor | None = None) -> dict[str, float]:
    compared = Compared(found, reference(real), CPU, None if logits is None else lambda: logits)
    return {name: value.value for name, value in metric_values([Metric(name, extractor) for name in names], compared).items()}


@pytest.mark.usefixtures("few_subsets")
def test_every_metric_is_its_functions_value_of_the_same_features_in_float64() -> None:
    found, real, logits = features(2300, 48, 1), features(2500, 48, 2), torch.from_numpy(features(2300, 20, 3))
    ours = values(["fid", "kid", "is", "precision", "recall"], "inception", found, real, logits)
    x, y = torch.from_numpy(found).double(), torch.from_numpy(real).double()
    library = {
        "fid": fid_statistics_to_metric(*map(fid_features_to_statistics, (x, y)), verbose=False)[KEY_METRIC_FID],
        "kid": kid_features_to_metric(x, y, kid_subsets=SUBSETS, verbose=False)["kernel_inception_distance_mean"],
        "is": isc_features_to_metric(logits.double())["inception_score_mean"],
    }
    own = prc_features_to_metric(x.float(), y.float(), verbose=False)
    library |= {f"{name}_inception": own[name] for name in ("precision", "recall")}
    assert ours == pytest.approx(library, rel=1e-7)  # precision and recall are means of float32 there
    assert all(ours[name] == pytest.approx(library[name], rel=1e-9) for name in ("fid", "kid", "is"))


def test_names_of_results_and_no_more_than_was_asked_for() -> None:
    found, real = features(1100, 8, 1), features(1200, 8, 2)
    assert list(values(["fd", "precision"], "digits", found, real)) == ["fd_digits", "precision_digits"]
    everything = values([name for name in METRICS if name not in ("is", "fd_by_class")], "pytorch_fid", found, real)
    assert all(np.isfinite(value) for value in everything.values())


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="64 images are too few"):
        values(["fid"], "inception", features(64, 64, 0), features(100, 64, 1))


def test_features_that_are_not_finite_are_refused_whatever_is_measured() -> None:
    found = features(1100, 8, 1)
    found[17, 3] = np.inf
    for name in METRICS:
        with pytest.raises(InputError, match="not finite"):
            values([name], "inception", found, features(1200, 8, 2))


def test_the_inception_scores_standard_error_is_that_of_independent_sets() -> None:
    real = reference(features(20, 4, 0))
    sets = [2 * torch.randn(200, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(400)]
    found = [metric_values([Metric("is", "inception")], Compared(x.numpy(), real, CPU, lambda x=x: x))["is"] for x in sets]
    spread = np.std([value.value for value in found], ddof=1)
    assert np.sqrt(np.mean([value.error**2 for value in found if value.error is not None])) == pytest.approx(spread, rel=0.15)


def test_the_inception_scores_standard_error_has_one_less_than_n_below_it() -> None:
    logits = torch.from_numpy(features(100, 6, 3))
    found = metric_values([Metric("is", "inception")], Compared(features(100, 6, 3), reference(features(20, 6, 0)), CPU, lambda: logits))[
        "is"
    ]
    shuffled = logits[np.random.RandomState(2020).permutation(100)].double()
    parts = [isc_features_to_metric(part, splits=1, shuffle=False)["inception_score_mean"] for part in shuffled.split(10)]
    assert found.value == pytest.approx(np.mean(parts), rel=1e-12)
    assert found.error == pytest.approx(np.std(parts, ddof=1) / np.sqrt(10), rel=1e-12)


def png_folder(folder: Path, images: np.ndarray) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(folder / f"{number:05d}.png")
    return str(folder)


@pytest.mark.usefixtures("few_subsets")
def test_torch_fidelitys_command_gives_the_same_values_of_written_images(
    tmp_path: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the digits' network, which takes grey images; torch-fidelity makes every image RGB."""
    torch.manual_seed(3)
    module = DigitsFeatures().eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=1.6 / np.sqrt(layer.weight[0].numel()))
    forward, made = DigitsFeatures.forward, DigitsFeatures.__init__

    def with_weights(self: DigitsFeatures, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        self.load_state_dict(module.state_dict())

    sets = [blobs(IMAGES, seed, contrast)[:, :1, ::4, ::4] for seed, contrast in ((1, 1.0), (2, 0.9))]
    ours = [extract(module, [images], CPU) for images in sets]
    monkeypatch.setattr(DigitsFeatures, "__init__", with_weights)
    monkeypatch.setattr(DigitsFeatures, "forward", lambda self, images: forward(self, images[:, :1]))
    library = calculate_metrics(
        input1=png_folder(tmp_path / "a", sets[0]),
        input2=png_folder(tmp_path / "b", sets[1]),
        feature_extractor="digits",
        fid=True,
        kid=True,
        kid_subsets=SUBSETS,
        prc=True,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,
    )
    found = values(["fd", "kid", "precision", "recall"], "digits", *ours)
    assert found["fd_digits"] == pytest.approx(library["frechet_inception_distance"], rel=1e-4)
    assert found["kid_digits"] == pytest.approx(library["kernel_inception_distance_mean"], rel=1e-4)
    assert found["precision_digits"] == pytest.approx(library["precision"], rel=1e-4)
    assert found["recall_digits"] == pytest.approx(library["recall"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_torch_fidelitys_command_gives_the_same_values_with_inception(
    tmp_path: Path,
    blobs: Blobs,
    inception_weights: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Both with images brought to 75 pixels, the fewest that the network takes, instead of 299: a sixteenth of the work."""
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)
    sets = [blobs(IMAGES, seed, contrast) for seed, contrast in ((1, 1.0), (2, 0.9))]
    torch.save(inception_weights, tmp_path / "weights.pth")
    inputs = [png_folder(tmp_path / name, images) for name, images in zip("ab", sets, strict=True)]
    options = ["--isc", "--fid", "--kid", "--prc", "--cpu", "--json", "--silent", "--no-cache", "--save-cpu-ram", "--batch-size", "64"]
    network = ["--feature-extractor", "inception-v3-compat", "--feature-extractor-weights-path", str(tmp_path / "weights.pth")]
    monkeypatch.setattr(sys, "argv", ["fidelity", *options, *network, "--input1", inputs[0], "--input2", inputs[1]])
    fidelity.main()
    printed = capsys.readouterr().out
    library = json.loads(printed[printed.index("{") :])
    module = inception.build(inception_weights)
    found, real = (extract(module, [images], CPU) for images in sets)
    ours = values(["fid", "kid", "is", "precision", "recall"], "inception", found, real, inception.class_logits(module, found))
    assert ours == pytest.approx(
        {
            "fid": library["frechet_inception_distance"],
            "kid": library["kernel_inception_distance_mean"],
            "is": library["inception_score_mean"],
            "precision_inception": library["precision"],
            "recall_inception": library["recall"],
        },
        rel=1e-4,
    )
