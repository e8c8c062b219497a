"""The estimator against the two Workflows that were measured on KFP 2.17.0 with Argo 4.0.5, from the packages that they were made of."""

import gzip
import json
from pathlib import Path

import pytest

from pipelines.kubeflow.workflow_size import MOST, Size, size_of

DATA = Path(__file__).parents[2] / "data/kubeflow"


def size(tasks: int) -> Size:
    spec, platforms = json.loads(gzip.decompress((DATA / f"package-{tasks}.json.gz").read_bytes()))
    return size_of(spec, platforms)


def test_a_run_of_34_tasks_ended_with_483_758_bytes() -> None:
    assert size(34).total == pytest.approx(483_758, rel=0.03)
    assert size(34).fits


def test_the_spec_alone_of_229_tasks_had_1_046_836_bytes() -> None:
    assert size(229).spec == pytest.approx(1_046_836, rel=0.01)
    assert not size(229).fits


def test_a_workflow_near_the_size_limit_does_not_fit() -> None:
    assert Size(spec=MOST // 2, status=MOST // 4, tasks=1).fits
    assert not Size(spec=MOST // 2, status=MOST // 2 - 1000, tasks=1).fits
