"""What happens inside a snapshot's network, from a store to a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from edm2core.plan.manifest import Ref
from edm2core.stages import diagnostics

if TYPE_CHECKING:
    from conftest import Bench

SETTINGS = {"images": 50, "levels": 4, "batch": 32, "ema": "fixed"}


def test_the_result_names_every_level_and_both_splits(bench: Bench, network: Ref, digits: Ref) -> None:
    work, manifest = bench.run(diagnostics.run, "diagnostics", SETTINGS, {"snapshot": network, "data": digits})
    found = json.loads((work.out / "diagnostics.json").read_text())
    assert found.items() <= manifest.metadata.items()
    assert [level["level"] for level in found["levels"]] == ["encoder 8", "encoder 4", "middle 4", "decoder 4", "decoder 8"]
    assert [len(found[name]) for name in ("sigmas", "log_variance", "train_loss", "test_loss")] == [4] * 4
    assert found["train_loss"] != found["test_loss"]
    assert (found["train_images"], found["test_images"]) == (50, 50)
    assert found["activation"] == pytest.approx(sum(level["activation"] for level in found["levels"]) / 5)


def test_the_same_images_are_looked_at_again_whatever_the_batch(bench: Bench, network: Ref, digits: Ref) -> None:
    inputs = {"snapshot": network, "data": digits}
    _, one = bench.run(diagnostics.run, "diagnostics", SETTINGS, inputs)
    _, other = bench.run(diagnostics.run, "diagnostics", {**SETTINGS, "batch": 50}, inputs)
    assert one.metadata["test_loss"] == pytest.approx(other.metadata["test_loss"], rel=1e-4)


def test_a_network_that_has_diverged_gives_nulls(bench: Bench, network: Ref, digits: Ref) -> None:
    work = bench.workspace("diagnostics", SETTINGS, {"snapshot": network, "data": digits})
    file = work.inputs["snapshot"].path("ema-fixed.safetensors")
    weights = load_file(file)
    description = (file.parent / "snapshot.json").read_text()
    broken = bench.workspace("snapshot", {}, {"data": digits}, "broken")
    (broken.out / "snapshot.json").write_text(description)
    save_file({name: torch.full_like(weight, torch.nan) for name, weight in weights.items()}, broken.out / file.name)
    ref = bench.commit(broken).ref
    _, manifest = bench.run(diagnostics.run, "diagnostics", SETTINGS, {"snapshot": ref, "data": digits})
    assert manifest.metadata["weight"] is None
    assert manifest.metadata["train_loss"] == [None] * 4
