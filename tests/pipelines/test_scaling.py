import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.config.settings import OwnNetworkSettings
from edm2core.plan.network_cost import Cost
from pipelines.estimate import GPUS
from pipelines.gpu_use import NETWORKS, USEFUL, divided, max_gpus, modelled
from tests.pipelines.test_estimate import planned

Edm2 = Callable[..., tuple[int, str]]


def test_one_gpu_reduces_nothing_and_slow_networks_cost_more() -> None:
    one, fast, slow = (modelled(40e9, 40_000_000, 64, gpus, bandwidth, 350e12) for gpus, bandwidth in ((1, 1e9), (8, 100e9), (8, 1e9)))
    assert one.efficiency == 1.0
    assert 0.9 < fast.efficiency < 1.0
    assert slow.efficiency < 0.5


@settings(deadline=None, max_examples=30)
@given(st.floats(1e8, 1e12), st.integers(10**5, 10**9), st.integers(1, 600), st.floats(1e9, 1e12))
def test_the_most_gpus_share_the_batch_evenly_and_none_further_would_be_useful(
    flops: float, parameters: int, batch: int, bandwidth: float
) -> None:
    most = max_gpus(flops, parameters, batch, bandwidth, 350e12)
    useful = [
        n
        for n in range(1, batch + 1)
        if batch % n == 0 and (n == 1 or modelled(flops, parameters, batch // n, n, bandwidth, 350e12).efficiency >= USEFUL)
    ]
    assert most == max(useful)


@pytest.mark.parametrize(("recipe", "metric"), [("cifar10/E", "fid"), ("digits/C", "fd_filters")])
def test_a_faster_network_lets_a_training_use_more_gpus(tmp_path: Path, recipe: str, metric: str) -> None:
    (batch,) = divided(
        planned(tmp_path, recipe, seeds=[0, 1], epochs=[1, 2], metrics=[metric]),
        GPUS["h100"],
        {},
    )
    assert batch.recipe == recipe
    assert len(batch.gpus) == len(NETWORKS)
    assert list(batch.gpus) == sorted(batch.gpus, reverse=True)


def test_the_published_batch_fills_two_nodes_of_eight_with_nvlink(tmp_path: Path) -> None:
    (batch,) = divided(planned(tmp_path, "cifar10/E"), GPUS["h100"], {})
    assert (batch.images, batch.gpus) == (512, (16, 8, 2))


def test_a_training_is_named_without_what_only_samplers_differ_in(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", sweep={"sample.steps": [6, 12], "training.lr": [0.01, 0.02]})
    assert [batch.recipe for batch in divided(tasks, GPUS["h100"], {})] == ["cifar10/E lr=0.01", "cifar10/E lr=0.02"]


def test_a_network_of_own_code_that_was_not_measured_is_left_out(tmp_path: Path) -> None:
    own = OwnNetworkSettings(use="mine:Net", resolution=32, image_channels=3)
    tasks = [
        replace(task, settings={**task.settings, "network": own.model_dump()})
        for task in planned(tmp_path, "cifar10/E")
        if task.stage == "snapshot"
    ]
    assert divided(tasks, GPUS["h100"], {}) == []
    assert [batch.recipe for batch in divided(tasks, GPUS["h100"], {own: Cost(10**12, 10**6)})] == ["cifar10/E"]


def test_the_plan_says_how_many_gpus_are_useful(edm2: Edm2) -> None:
    printed = edm2("plan", "cifar10")[1]
    assert re.search(r"^cifar10/E +512 +16 +8 +2$", printed, re.MULTILINE)
    assert "On more than max GPUs over 20% of a step waits for gradients" in printed
