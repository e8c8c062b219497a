import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edm2core.config import load_recipe
from edm2core.config.settings import DataSettings
from edm2core.data import prepare_data
from edm2core.errors import InputError
from edm2core.metrics import extraction
from edm2core.metrics.extraction import ExtractorInfo
from edm2core.metrics.extractors.digits import DigitsFeatures
from edm2core.metrics.statistics import read_reference
from edm2core.plan.manifest import Ref
from edm2core.stages import metrics, reference
from edm2core.store.results import load

INCEPTION_LIKE = ExtractorInfo("inception", "digits", DigitsFeatures.LAYER, DigitsFeatures.DIMENSIONS)


@pytest.fixture
def extractor(bench: Any, monkeypatch: pytest.MonkeyPatch) -> Ref:
    """The digits' small network under Inception's name, since only such features have statistics to import."""
    monkeypatch.setitem(extraction.INFOS, "inception", INCEPTION_LIKE)
    monkeypatch.setitem(extraction.BUILD, "inception", extraction.BUILD["digits"])
    work = bench.workspace("extractor", {}, {})
    INCEPTION_LIKE.write(work.out, DigitsFeatures().state_dict())
    ref: Ref = bench.commit(work).ref
    return ref


def settings(path: Path, **changes: Any) -> dict[str, Any]:
    given = {"source": str(path), "extractor": "inception", "count": 1437, "resolution": 8, "origin": "someone's page, 2023"}
    return {**given, "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}", **changes}


@pytest.fixture
def theirs(bench: Any, digits: Ref, extractor: Ref) -> Path:
    """Our own statistics as others would have saved them."""
    _, manifest = bench.run(reference.run, "reference", {"split": "train"}, {"data": digits, "extractor": extractor})
    own = read_reference((bench.folder / "store" / manifest.path("reference.json")).parent).statistics
    path: Path = bench.folder / "theirs.npz"
    np.savez(path, mu=own.mean, sigma=own.covariance)
    return path


def count(bench: Any, digits: Ref) -> int:
    return int(load(bench.store, digits).metadata["counts"]["train"])


def test_a_distance_from_imported_statistics_is_the_same_number_under_a_name_that_says_so(
    bench: Any, digits: Ref, extractor: Ref, theirs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = {"data": digits, "extractor": extractor}
    _, own = bench.run(reference.run, "reference", {"split": "train"}, inputs)
    _, imported = bench.run(reference.run, "reference", settings(theirs, count=count(bench, digits)), inputs)
    assert "someone's page" in capsys.readouterr().out
    assert "features.npy" not in imported.files
    work = bench.workspace("sample", {}, {})
    np.save(work.out / "samples-00000.npy", np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8))
    work.metadata["n"] = 300
    inputs["samples"] = bench.commit(work).ref
    found = [bench.run(metrics.run, "metrics", {"metrics": ["fid"]}, inputs | {"reference": r.ref})[1].metadata for r in (own, imported)]
    assert found[0]["values"]["fid"] == pytest.approx(found[1]["values"]["fid_imported"], rel=1e-12)
    assert found[1]["reference_origin"] == "someone's page, 2023"
    assert "reference_origin" not in found[0]


def test_statistics_of_another_count_of_images_are_refused(bench: Any, digits: Ref, extractor: Ref, theirs: Path) -> None:
    with pytest.raises(InputError, match="are of 50000 images, and the data have 1438 for training"):
        bench.run(reference.run, "reference", settings(theirs, count=50_000), {"data": digits, "extractor": extractor})


def test_a_file_that_changed_since_it_was_planned_is_refused(bench: Any, digits: Ref, extractor: Ref, theirs: Path) -> None:
    given = settings(theirs, count=count(bench, digits), digest=f"sha256:{0:064x}")
    with pytest.raises(InputError, match="digest is wrong"):
        bench.run(reference.run, "reference", given, {"data": digits, "extractor": extractor})


def test_images_too_few_for_a_covariance_can_still_be_compared_one_by_one(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Planning lets 6 images pass for precision in any features. Only a Fréchet distance needs more images than features."""
    data = bench.workspace("prepare", {}, {})
    few = {**load_recipe("digits/C").data.model_dump(), "test_share": 0.97}
    data.metadata |= prepare_data(DataSettings.model_validate(few), None, data.out)
    assert data.metadata["counts"]["train"] < DigitsFeatures.DIMENSIONS
    network = bench.workspace("extractor", {}, {})
    extraction.INFOS["digits"].write(network.out, DigitsFeatures().state_dict())
    inputs = {"data": bench.commit(data).ref, "extractor": bench.commit(network).ref}
    _, own = bench.run(reference.run, "reference", {"split": "train"}, inputs)
    assert "50 images are too few" in capsys.readouterr().out
    work = bench.workspace("sample", {}, {})
    np.save(work.out / "samples-00000.npy", np.random.default_rng(0).integers(0, 256, (70, 1, 8, 8), dtype=np.uint8))
    work.metadata["n"] = 70
    inputs |= {"samples": bench.commit(work).ref, "reference": own.ref}
    measured = bench.run(metrics.run, "metrics", {"metrics": ["precision", "memorisation"]}, inputs)[1].metadata
    assert (set(measured["values"]), measured["n_reference"]) == ({"precision_digits", "memorisation_digits"}, own.metadata["n"])
    with pytest.raises(InputError, match="too few for a Fréchet distance in 64 features"):
        bench.run(metrics.run, "metrics", {"metrics": ["fd"]}, inputs)
