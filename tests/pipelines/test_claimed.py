import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.launcher.profile import Profile, load_profile
from edm2core.plan.plan import Plan
from pipelines.estimate import GPUS, estimates
from pipelines.gpu_use import Claims, PodSeconds, claims
from tests.pipelines.test_estimate import planned

Edm2 = Callable[..., tuple[int, str]]
NOTHING_BESIDE = PodSeconds(0, 0, 0)


def claimed(folder: Path, pod: PodSeconds, **resources: object) -> Claims:
    tasks = planned(folder, "cifar10/E", epochs=[10, 20], seeds=[0, 1])
    values = json.loads(load_profile("gpu").dumps())
    values["resources"] |= resources
    return claims(Plan(tuple(tasks)), estimates(tasks, lambda ref: None), GPUS["h100"], Profile.loads(json.dumps(values)), pod=pod)


def test_all_claimed_time_is_at_work_where_pods_take_no_time_beside_it(tmp_path: Path) -> None:
    found = claimed(tmp_path, NOTHING_BESIDE, snapshot={"gpus": 1})
    assert found.all.share == 1
    assert found.all.claimed == found.all.work


def test_a_training_is_one_pod_through_all_of_its_snapshots(tmp_path: Path) -> None:
    found = claimed(tmp_path, PodSeconds(start=10, rendezvous=4, saving=1), snapshot={"gpus": 4})
    training = found.stages["snapshot"]
    assert training.pods == 2  # two seeds of two snapshots
    assert (training.start, training.rendezvous, training.saving) == (2 * 4 * 10, 2 * 4 * 4, 2 * 4 * 1)
    assert found.stages["sample"].pods == 4
    assert found.stages["sample"].rendezvous == 0


def test_stages_without_a_gpu_claim_none(tmp_path: Path) -> None:
    assert claimed(tmp_path, NOTHING_BESIDE).stages.keys() == {"reference", "snapshot", "sample", "probe"}


def test_a_training_on_more_gpus_than_its_batch_fills_waits_for_gradients(tmp_path: Path) -> None:
    one, many = (claimed(tmp_path, NOTHING_BESIDE, snapshot={"gpus": gpus}).stages["snapshot"] for gpus in (1, 64))
    assert one.work == many.work
    assert one.waiting == 0
    assert many.share < 0.5


def test_the_most_gpus_are_those_of_trainings_that_run_side_by_side_with_evaluations(tmp_path: Path) -> None:
    assert 8 <= claimed(tmp_path, NOTHING_BESIDE, snapshot={"gpus": 4}).most_gpus <= 8 + 3  # four jobs, and one evaluation more


def test_the_published_table_has_nine_tenths_of_its_claimed_gpu_time_at_work(edm2: Edm2) -> None:
    printed = edm2("plan", "cifar10", "--cluster", "gpu")[1]
    (share,) = re.findall(r"^([\d.]+)% of the claimed GPU time is at work", printed, re.MULTILINE)
    assert float(share) >= 90
    assert re.search(r"^snapshot +3 ", printed, re.MULTILINE)


def test_a_profile_without_gpus_claims_none(edm2: Edm2) -> None:
    assert "Jobs of the profile lab claim no GPU." in edm2("plan", "demo", "--cluster", "lab")[1]


@pytest.mark.parametrize(("cpu", "slower"), [("500m", True), ("64", False)])
def test_a_stage_without_a_gpu_takes_as_long_as_its_cores_need(tmp_path: Path, cpu: str, slower: bool) -> None:
    usual = claimed(tmp_path, NOTHING_BESIDE)
    other = claimed(tmp_path, NOTHING_BESIDE, metrics={"gpus": 0, "cpu": cpu})
    assert (other.seconds > usual.seconds) == slower
