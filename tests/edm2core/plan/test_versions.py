from pathlib import Path

import pytest

from edm2core.plan import versions
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.stages import STAGES
from edm2core.plan.versions import Change, measures, version_of

NOTHING: versions.TaskSettings = {}


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two estimators have changed, one after the other."""
    changes = (Change("metrics", "kid", measures("kid")), Change("metrics", "density", measures("density", "coverage")))
    monkeypatch.setattr(versions, "CHANGES", changes)


@pytest.mark.usefixtures("changed")
def test_a_change_raises_the_version_of_what_it_concerns_alone() -> None:
    first = STAGES["metrics"].version
    assert version_of("metrics", {"metrics": ["fid", "is"]}) == first
    assert version_of("metrics", {"metrics": ["fid", "kid"]}) == version_of("metrics", {"metrics": ["coverage"]}) == first + 1
    assert version_of("metrics", {"metrics": ["kid", "density", "coverage"]}) == first + 2
    assert version_of("sample", NOTHING) == STAGES["sample"].version


@pytest.mark.usefixtures("changed")
def test_a_change_moves_the_keys_of_what_it_concerns_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "e.yaml").write_text(
        "name: x\nrecipes: [digits/C]\nepochs: [10]\nmetrics: [fd, density, precision_inception]\nsample: {count: 3000}\n"
    )
    experiment, digests = load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits", "inception": "sha256:6726825d"}
    after = {task.title: task.ref for task in plan(experiment, digests)}
    monkeypatch.setattr(versions, "CHANGES", ())
    before = {task.title: task.ref for task in plan(experiment, digests)}
    assert [title for title in before if before[title] != after[title]] == ["C · seed 0 · FD, Density (digits features) at epoch 10"]
