from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from edm2core.config.settings import ProbeSettings
from edm2core.data import load_prepared
from edm2core.errors import InputError
from edm2core.manifest import Ref
from edm2core.probe import Cell, Probe
from edm2core.stages import probe


def settings(**changes: Any) -> dict[str, Any]:
    chosen = {"t": (4,), "blocks": ("out_2",), "epochs": 3, "batch": 128, "lr": 0.01, "flip": False, **changes}
    return ProbeSettings(**chosen).model_dump(mode="json")


def written(bench: Any, manifest: Any) -> Any:
    return json.loads((bench.folder / "store" / manifest.path("probe.json")).read_text())


def test_one_cell_uses_all_training_images_and_beats_chance(bench: Any, digits: Ref, network: Ref) -> None:
    inputs = {"snapshot": network, "data": digits}
    _, manifest = bench.run(probe.run, "probe", settings(), inputs)
    facts, found = manifest.metadata, written(bench, manifest)
    assert facts["probe_accuracy"] > 25  # chance is 10
    assert (facts["train_images"], facts["validation_images"], facts["test_images"]) == (1438, 0, 359)
    assert facts["chosen"] == {"t": 4, "sigma": pytest.approx(0.0599, abs=1e-4), "block": "out_2", "by": "settings"}
    assert found["test_accuracy"] == facts["probe_accuracy"]
    assert [sum(row) for row in found["confusion"]] == np.bincount(_data(bench, digits).test_labels).tolist()
    assert sum(found["confusion"][i][i] for i in range(10)) / 359 * 100 == pytest.approx(found["test_accuracy"], abs=1e-3)
    assert (found["epochs"], found["batch"], found["lr"], found["seed"]) == (3, 128, 0.01, 0)
    _, again = bench.run(probe.run, "probe", settings(), inputs)
    assert written(bench, again) == found


def _data(bench: Any, digits: Ref) -> Any:
    return load_prepared(next((bench.folder / "store" / digits.folder).glob("*/dataset.json")).parent)


def test_raw_pixels_need_no_snapshot(bench: Any, digits: Ref) -> None:
    _, manifest = bench.run(probe.run, "probe", settings(t=(1,), blocks=("pixels",), epochs=8), {"data": digits})
    assert manifest.metadata["pixel_accuracy"] > 80
    assert "probe_accuracy" not in manifest.metadata
    assert [(cell["t"], cell["block"]) for cell in manifest.metadata["cells"]] == [(0, "pixels")]


def test_a_grid_has_every_cell_and_holds_validation_images_out(bench: Any, digits: Ref, network: Ref) -> None:
    _, manifest = bench.run(probe.run, "probe", settings(t=(3, 5), blocks=("all",), epochs=1), {"snapshot": network, "data": digits})
    facts = manifest.metadata
    assert [(cell["t"], cell["block"]) for cell in facts["cells"]] == [(t, f"out_{k}") for t in (3, 5) for k in range(1, 6)]
    assert facts["train_images"] + facts["validation_images"] == 1438
    assert 130 <= facts["validation_images"] <= 155
    chosen = [cell for cell in facts["cells"] if cell["chosen"]]
    assert len(chosen) == 1
    assert chosen[0]["validation_accuracy"] == max(cell["validation_accuracy"] for cell in facts["cells"])
    assert facts["probe_accuracy"] == chosen[0]["test_accuracy"]


def test_the_cell_is_chosen_on_validation_images_though_another_is_best_on_test(
    bench: Any, digits: Ref, network: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cell out_1 is right on every validation image and wrong on every test image; out_2 the other way round."""
    right_on = {"out_1": "validation", "out_2": "test"}
    data = _data(bench, digits)
    answers = {
        image.tobytes(): int(label)
        for image, label in zip([*data.train_images, *data.test_images], [*data.train_labels, *data.test_labels], strict=True)
    }

    def predict(self: Probe, images: torch.Tensor, purpose: str, on_batch: Any = None) -> dict[Cell, torch.Tensor]:
        labels = torch.tensor([answers[image.numpy().tobytes()] for image in images])
        return {cell: labels if right_on[cell.block] == purpose else (labels + 1) % 10 for cell in self.cells}

    monkeypatch.setattr(Probe, "predict", predict)
    _, manifest = bench.run(probe.run, "probe", settings(blocks=("out_1", "out_2"), epochs=1), {"snapshot": network, "data": digits})
    assert manifest.metadata["chosen"]["block"] == "out_1"
    assert manifest.metadata["chosen"]["by"] == "validation accuracy"
    assert manifest.metadata["probe_accuracy"] == 0
    assert {cell["block"]: cell["test_accuracy"] for cell in manifest.metadata["cells"]} == {"out_1": 0, "out_2": 100}


def test_a_probe_that_was_killed_goes_on_where_it_was_and_ends_the_same(
    bench: Any, digits: Ref, network: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    monkeypatch.setattr(probe, "SAVE_EVERY_S", 0.0)
    inputs = {"snapshot": network, "data": digits}
    _, whole = bench.run(probe.run, "probe", settings(), inputs)
    epochs: list[int] = []
    train_epoch = Probe.train_epoch

    def dying(self: Probe, on_step: Any = None) -> Any:
        if self.epochs == 2 and 2 not in epochs:
            epochs.append(2)
            raise KilledError
        epochs.append(self.epochs)
        return train_epoch(self, on_step)

    monkeypatch.setattr(Probe, "train_epoch", dying)
    with pytest.raises(KilledError):
        probe.run(bench.workspace("probe", settings(), inputs, "resumed"))
    _, resumed = bench.run(probe.run, "probe", settings(), inputs, "resumed")
    assert epochs == [0, 1, 2, 2]
    assert written(bench, resumed) == written(bench, whole)


def test_an_unknown_block_names_those_there_are(bench: Any, digits: Ref, network: Ref) -> None:
    with pytest.raises(InputError, match="no block out_6") as caught:
        bench.run(probe.run, "probe", settings(blocks=("out_6",)), {"snapshot": network, "data": digits})
    assert "out_1, out_2, out_3, out_4, out_5" in caught.value.do_next


def test_data_without_test_images_are_refused(bench: Any, tmp_path: Any) -> None:
    from PIL import Image

    from edm2core.config.settings import DataSettings
    from edm2core.stages import prepare

    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((8, 8, 3), 40 * number + len(name), np.uint8)).save(tmp_path / "pictures" / name / f"{number}.png")
    data_settings = DataSettings(format="images", source=str(tmp_path / "pictures"), resolution=8, test_share=0.0)
    _, data = bench.run(prepare.run, "prepare", data_settings.model_dump(mode="json"))
    with pytest.raises(InputError, match="needs test images"):
        bench.run(probe.run, "probe", settings(blocks=("pixels",)), {"data": data.ref})
