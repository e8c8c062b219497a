"""Both sides of every row run, here at the smallest size: a row for a GPU is known to work before there is one."""

import tempfile
from pathlib import Path

import pytest

from bench import choices, evaluation, limit, network, probe, scaling, training
from bench.gpu import profile
from bench.gpu import sides as gpu
from bench.worker import Work
from edm2core.diffusion import folding, trainer, unet

TINY = "digits/G"
SIDES = {
    "plain forward": lambda: network.plain_forward(TINY, 2),
    "product forward": lambda: network.product_forward(TINY, 2),
    "plain sample": lambda: network.plain_sample(TINY, 2, 2),
    "product sample": lambda: network.product_sample(TINY, 2, 2),
    "plain step": lambda: network.plain_step(TINY, 2),
    "product step": lambda: network.product_step(TINY, 2),
    "plain update": lambda: training.plain_update(TINY),
    "product update": lambda: training.product_update(TINY),
    "plain save": lambda: training.plain_save(TINY),
    "product save": lambda: training.product_save(TINY, 2),
    "a forward without channels_last": lambda: choices.forward(TINY, 2, "channels_last"),
    "a forward without folding": lambda: choices.forward(TINY, 2, "folding"),
    "averages one by one": lambda: choices.averages(TINY, one_by_one=True),
    "fused Adam": lambda: choices.adam(TINY, fused=True),
    "a step without dropout": lambda: choices.step("digits/C", 2, dropout=0.0),
    "a step with torch's masks": lambda: choices.step("digits/C", 2, dropout=0.1, torchs_masks=True),
    "plain training on a device": lambda: gpu.plain_train(TINY, 4, 2, 8, "cpu"),
    "product training on a device": lambda: gpu.product_train(TINY, 4, 2, 8, "cpu"),
    "plain sampling on a device": lambda: gpu.plain_draw(TINY, 2, 2, "cpu"),
    "product sampling on a device": lambda: gpu.product_draw(TINY, 2, 2, "cpu"),
    "unfolded training on a device": lambda: gpu.product_train(TINY, 4, 2, 8, "cpu", without="folding"),
    "training on a device without constants": lambda: gpu.product_train(TINY, 4, 2, 8, "cpu", without="constants"),
    "training on a device with torch's masks": lambda: gpu.product_train("digits/C", 4, 2, 8, "cpu", without="keys"),
    "a step by kinds of kernels": lambda: profile.step_by_kind(TINY, 4, 8, "cpu"),
    "a copy": lambda: limit.copy("cpu", 1024),
    "bf16": lambda: limit.bf16("cpu", 64),
    "plain metrics": lambda: evaluation.plain_passes(8, 8),
    "product metrics": lambda: evaluation.product_pass(8, 8),
    "product extractor": lambda: evaluation.product_extract(8),
    "bare extractor": lambda: evaluation.bare_extractor(8),
    "plain probe": lambda: probe.plain_cell(1, 1),
    "shared probe": lambda: probe.shared_passes(1, 1),
    "product probe": lambda: probe.product_grid(1, 1),
    "cached and fresh": lambda: probe.cached_and_fresh(1, 1, 1),
    "processes": lambda: scaling.several(TINY, 4, 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For all sides, since several share what one has made."""
    return tmp_path_factory.mktemp("sides")


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDES)
def test_a_side_runs_twice_and_all_it_reports_are_numbers(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for module, own in ((unet, "dropout"), (trainer, "FoldedForTraining"), (folding, "_with_constants")):
        monkeypatch.setattr(module, own, getattr(module, own))  # some sides put others in their place
    work: Work = SIDES[name]()
    for _ in range(2):
        numbers = work()
        assert numbers is None or {type(value) for value in numbers.values()} in ({int}, {float}, {int, float})
