"""The estimator against the two Workflows that were measured on KFP 2.17.0 with Argo 4.0.5, from the packages that they were made of."""

import gzip
import json
from pathlib import Path
from typing import Any

from pipelines.kubeflow.workflow_size import MOST, Size, size_of

DATA = Path(__file__).parents[2] / "data/kubeflow"


def package(tasks: int) -> tuple[dict[str, Any], dict[str, Any]]:
    spec, platforms = json.loads(gzip.decompress((DATA / f"package-{tasks}.json.gz").read_bytes()))
    return spec, platforms


def size(tasks: int) -> Size:
    return size_of(*package(tasks))


def test_the_estimate_of_a_run_of_34_tasks_that_ended_with_483_758_bytes_is_not_below_and_at_most_a_tenth_above() -> None:
    assert 1 <= size(34).total / 483_758 < 1.1
    assert size(34).fits


def test_the_estimate_of_the_spec_of_229_tasks_that_had_1_046_836_bytes_is_not_below_and_at_most_a_tenth_above() -> None:
    assert 1 <= size(229).spec / 1_046_836 < 1.1
    assert not size(229).fits


def test_a_workflow_near_the_size_limit_does_not_fit() -> None:
    assert Size(spec=MOST // 2, status=MOST // 4).fits
    assert not Size(spec=MOST // 2, status=MOST // 2 - 1000).fits


def test_the_size_does_not_depend_on_the_order_in_which_kfp_writes() -> None:
    spec, platforms = package(34)
    turned = json.loads(json.dumps(spec), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert size_of(turned, platforms) == size_of(spec, platforms)
