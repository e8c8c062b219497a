import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from edm2core.config.settings import DataSettings
from edm2core.errors import InputError
from edm2core.metrics.extraction import extract, load_extractor
from edm2core.plan.manifest import Manifest, Ref
from edm2core.registry import INCEPTION_URL
from edm2core.stages import extractor, prepare, reference

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are brought to 75 pixels, the fewest that Inception takes, instead of 299."""
    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 75)


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like the published one, with random weights."""
    torch.manual_seed(0)
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with pytest.MonkeyPatch.context() as during:
        during.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=nothing)
    path = tmp_path_factory.mktemp("weights") / "weights-inception-2015-12-05-6726825d.pth"
    torch.save(module.state_dict(), path)
    return path


def inception(path: Path | str | None, digest: str | None = None) -> dict[str, Any]:
    if digest is None:
        digest = f"sha256:{hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()}"
    return {"extractor": "inception", "source": str(path) if path else None, "digest": digest}


def folder_of(bench: Any, manifest: Manifest) -> Path:
    return Path(bench.folder / "store" / manifest.path("")).resolve()


@pytest.mark.slow
def test_the_digits_extractor_is_accurate_and_says_how_much(bench: Any, digits: Ref) -> None:
    _, manifest = bench.run(extractor.run, "extractor", {"extractor": "digits"}, {"data": digits})
    assert manifest.metadata["test_accuracy"] > 95
    assert manifest.metadata["dimensions"] <= 64
    assert set(manifest.files) == {"extractor.safetensors", "extractor.json"}


def test_filters_need_no_file_and_serve_any_data(bench: Any, digits: Ref) -> None:
    _, made = bench.run(extractor.run, "extractor", {"extractor": "filters"}, {"data": digits})
    assert (made.metadata["extractor"], made.metadata["dimensions"]) == ("filters", 54)
    _, taken = bench.run(reference.run, "reference", {"split": "train"}, {"data": digits, "extractor": made.ref})
    assert taken.metadata["dimensions"] == 54


def test_digits_features_of_other_data_are_refused(bench: Any, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3) // 4 + 40 * number + (100 if name == "cat" else 0)
                _picture(pixels).save(folder / part / name / f"{number}.png")
    settings = DataSettings(format="images", source=str(folder), resolution=8).model_dump(mode="json")
    _, data = bench.run(prepare.run, "prepare", settings)
    with pytest.raises(InputError, match="digits features are for 10 classes"):
        bench.run(extractor.run, "extractor", {"extractor": "digits"}, {"data": data.ref})


def _picture(colour: Any) -> Any:
    from PIL import Image

    return Image.fromarray(colour)


def test_inceptions_weights_come_out_as_they_went_in(bench: Any, weights_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, manifest = bench.run(extractor.run, "extractor", inception(weights_file))
    info, module = load_extractor(folder_of(bench, manifest))
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    own = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights_file))
    np.testing.assert_allclose(extract(module, [images], CPU), own(torch.from_numpy(images))[0].numpy(), rtol=1e-5, atol=1e-6)
    grey = images[:, :1]
    np.testing.assert_array_equal(extract(module, [grey], CPU), extract(module, [grey.repeat(3, axis=1)], CPU))
    assert info.dimensions == 2048
    assert manifest.metadata["published_weights"] is False
    assert "not comparable" in capsys.readouterr().out


def test_a_reference_of_too_few_images_for_fid_says_so_and_has_no_statistics(
    bench: Any, digits: Ref, weights_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, weights = bench.run(extractor.run, "extractor", inception(weights_file))
    monkeypatch.setattr(reference, "extract", lambda *given: np.ones((1437, 2048), np.float32))
    _, manifest = bench.run(reference.run, "reference", {"split": "train"}, {"data": digits, "extractor": weights.ref})
    assert "1437 images are too few for a Fr" in capsys.readouterr().out
    assert "reference.safetensors" not in manifest.files


@pytest.mark.parametrize("source", [None, "/nowhere/weights.pth"])
def test_absent_weights_say_where_to_get_them(bench: Any, source: str | None) -> None:
    with pytest.raises(InputError) as caught:
        bench.run(extractor.run, "extractor", inception(source, "sha256:6726825d"))
    assert INCEPTION_URL in caught.value.do_next
    assert "inception_weights" in caught.value.where + caught.value.do_next


def test_other_bytes_than_declared_are_refused(bench: Any, weights_file: Path) -> None:
    with pytest.raises(InputError, match="digest is wrong"):
        bench.run(extractor.run, "extractor", inception(weights_file, "sha256:6726825d"))


def test_a_file_that_would_run_code_is_refused_and_runs_none(bench: Any, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "weights.pth"
    torch.save({"fc.bias": Evil()}, path)
    with pytest.raises(InputError, match="cannot be read as a file of torch"):
        bench.run(extractor.run, "extractor", inception(path))
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="cannot be read as a file of torch"):
        bench.run(extractor.run, "extractor", inception(path))
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="not the weights of inception-v3-compat"):
        bench.run(extractor.run, "extractor", inception(path))


def test_an_extractor_that_does_not_exist_is_refused(bench: Any) -> None:
    with pytest.raises(InputError, match="no feature extractor 'vgg'"):
        bench.run(extractor.run, "extractor", {"extractor": "vgg"})


def test_dinov2s_weights_of_another_size_are_refused(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({"cls_token": torch.zeros(1, 1, 384), "pos_embed": torch.zeros(1, 1370, 384)}, path)
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    with pytest.raises(InputError, match="not the weights of dinov2_vitl14") as caught:
        bench.run(extractor.run, "extractor", {"extractor": "dinov2", "source": str(path), "digest": digest})
    assert "dinov2_weights" in caught.value.do_next


def test_inception_behind_another_resize_is_an_extractor_of_its_own(bench: Any, weights_file: Path) -> None:
    made = [
        bench.run(extractor.run, "extractor", inception(weights_file) | {"extractor": name})[1] for name in ("inception", "pytorch_fid")
    ]
    images = [np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)]
    infos, modules = zip(*(load_extractor(folder_of(bench, manifest)) for manifest in made), strict=True)
    assert [info.name for info in infos] == ["inception", "pytorch_fid"]
    assert not np.array_equal(*(extract(module, images, CPU) for module in modules))
