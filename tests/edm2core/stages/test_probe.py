import json
from typing import Any

import numpy as np
import pytest
import torch

from edm2core.config.settings import ProbeSettings
from edm2core.data import load_prepared
from edm2core.data.prepared import Prepared
from edm2core.data.scale import PixelScale
from edm2core.errors import InputError
from edm2core.plan.manifest import Ref
from edm2core.probe import features
from edm2core.probe.cells import Cell
from edm2core.probe.features import Data
from edm2core.probe.heads import Heads
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
    assert found["cells"][0]["test_accuracy"] == facts["probe_accuracy"]
    assert [sum(row) for row in found["confusion"]] == np.bincount(_data(bench, digits).test_labels).tolist()
    assert sum(found["confusion"][i][i] for i in range(10)) / 359 * 100 == pytest.approx(found["probe_accuracy"], abs=1e-3)
    assert {**found["settings"]} == settings()
    assert (found["features"], found["deviations"], found["picked_on_test"]) == ("fresh", {}, None)
    assert found["standard_errors"]["probe_accuracy"] == pytest.approx(
        (facts["probe_accuracy"] * (100 - facts["probe_accuracy"]) / 359) ** 0.5, abs=1e-3
    )
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
    inputs = {"snapshot": network, "data": digits}
    _, manifest = bench.run(probe.run, "probe", settings(t=(3, 5), blocks=("all",), epochs=2, seeds=(0, 1)), inputs)
    facts, found = manifest.metadata, written(bench, manifest)
    assert [(cell["t"], cell["block"]) for cell in facts["cells"]] == [(t, f"out_{k}") for t in (3, 5) for k in range(1, 6)]
    assert facts["train_images"] + facts["validation_images"] == 1438
    assert 130 <= facts["validation_images"] <= 155
    (chosen,) = (cell for cell in facts["cells"] if cell["chosen"])
    assert chosen["validation_accuracy"] == max(cell["validation_accuracy"] for cell in facts["cells"])
    assert facts["chosen"] == {"t": chosen["t"], "sigma": chosen["sigma"], "block": chosen["block"], "by": "validation accuracy"}
    best = max(facts["cells"], key=lambda cell: cell["test_accuracy"])
    assert facts["picked_on_test"] == {name: best[name] for name in ("t", "sigma", "block")}
    assert (facts["features"], len(found["by_seed"]["probe_accuracy"])) == ("cached", 2)
    assert facts["probe_accuracy"] == pytest.approx(np.mean(found["by_seed"]["probe_accuracy"]), abs=1e-3)
    assert facts["deviations"]["probe_accuracy"] == pytest.approx(np.std(found["by_seed"]["probe_accuracy"], ddof=1), abs=1e-3)
    summed = found["confusion_over_seeds"]
    assert sum(summed[i][i] for i in range(10)) / (2 * 359) * 100 == pytest.approx(facts["probe_accuracy"], abs=1e-3)
    # the chosen cell's accuracy is that of a probe of its own, on all training images and with the same features
    alone = settings(t=(chosen["t"],), blocks=(chosen["block"],), epochs=2, seeds=(0, 1), features="cached")
    _, single = bench.run(probe.run, "probe", alone, inputs)
    assert single.metadata["probe_accuracy"] == facts["probe_accuracy"]
    assert single.metadata["train_images"] == 1438


RIGHT_ON = {"out_1": "train", "out_2": "test"}


class Marked:
    """Features of which a linear layer sees the label, in block out_1 only on training images and in out_2 only on test images."""

    def __init__(self, data: Any) -> None:
        self.answers = {
            image.tobytes(): (split, int(label))
            for split in ("train", "test")
            for image, label in zip(getattr(data, f"{split}_images"), getattr(data, f"{split}_labels"), strict=True)
        }

    def __call__(self, denoiser: Any, cells: Any, precision: str) -> Any:
        def features(images: torch.Tensor, name: Any) -> dict[Cell, torch.Tensor]:
            known = [self.answers.get(np.asarray(image, np.uint8).tobytes(), ("", 0)) for image in images]
            return {cell: torch.stack([self._of(cell, *each) for each in known]) for cell in cells}

        return features

    def _of(self, cell: Cell, split: str, label: int) -> torch.Tensor:
        """One-hot where the block is right, of the next class where it is wrong; training sees the truth in both."""
        shown = label if split == "train" or RIGHT_ON[cell.block] == split else (label + 1) % 10
        return torch.nn.functional.one_hot(torch.tensor(shown), 10).float() * (1 if cell.block == "out_1" or split == "test" else 0.01)


def test_the_cell_is_chosen_on_validation_images_though_another_is_best_on_test(
    bench: Any, digits: Ref, network: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "denoiser_features", Marked(_data(bench, digits)))
    monkeypatch.setattr(Data, "at_network_scale", lambda self, images: images)
    grid = {"blocks": ("out_1", "out_2"), "epochs": 12}
    inputs = {"snapshot": network, "data": digits}
    _, manifest = bench.run(probe.run, "probe", settings(**grid), inputs)
    facts = manifest.metadata
    assert (facts["chosen"]["block"], facts["chosen"]["by"]) == ("out_1", "validation accuracy")
    assert facts["probe_accuracy"] < 10
    assert facts["picked_on_test"]["block"] == "out_2"
    assert facts["probe_accuracy_picked_on_test"] > 90

    fx = {"blocks": ("out_1", "out_2"), "protocol": "fx", "epochs": 15, "batch": 512, "lr": 4e-3, "flip": True}
    monkeypatch.setattr(features, "mirrored", lambda images, which: images)
    _, manifest = bench.run(probe.run, "probe", settings(**fx), inputs)
    assert (manifest.metadata["chosen"]["block"], manifest.metadata["chosen"]["by"]) == ("out_2", "test accuracy")
    assert (manifest.metadata["train_images"], manifest.metadata["validation_images"]) == (1438, 0)
    assert manifest.metadata["features"] == "fresh"
    assert manifest.metadata["picked_on_test"] is None
    assert [cell["validation_accuracy"] for cell in manifest.metadata["cells"]] == [None, None]


@pytest.mark.slow
def test_few_labels_and_nearest_neighbours_on_the_same_features(bench: Any, digits: Ref, network: Ref) -> None:
    chosen = settings(few_shot=(0.01, 0.1), knn=20, seeds=(0, 1, 2), epochs=4)
    _, manifest = bench.run(probe.run, "probe", chosen, {"snapshot": network, "data": digits})
    facts = manifest.metadata
    assert facts["knn_accuracy"] > 50
    assert 15 < facts["probe_accuracy_1pct"] < 60
    assert 20 < facts["probe_accuracy_10pct"] < 80
    assert facts["deviations"].keys() == {"probe_accuracy", "probe_accuracy_1pct", "probe_accuracy_10pct"}
    for name, error in facts[
        "standard_errors"
    ].items():  # seeds that know other labels are wrong about other images, so their mean varies less
        of_one = (facts[name] * (100 - facts[name]) / 359) ** 0.5
        assert error == pytest.approx(of_one, abs=1e-3) if name == "knn_accuracy" else 0.5 * of_one < error < 0.999 * of_one


def test_of_many_classes_the_five_likeliest_count_too(bench: Any, digits: Ref, network: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"snapshot": network, "data": digits}
    assert "probe_top5" not in bench.run(probe.run, "probe", settings(), inputs)[1].metadata
    monkeypatch.setattr(probe, "TOP_CLASSES", 10)
    facts = bench.run(probe.run, "probe", settings(), inputs)[1].metadata
    assert facts["probe_accuracy"] < facts["probe_top5"] <= 100


def test_a_probe_that_was_killed_goes_on_where_it_was_and_ends_the_same(
    bench: Any, digits: Ref, network: Ref, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    monkeypatch.setattr(probe, "SAVE_EVERY_S", 0.0)
    inputs = {"snapshot": network, "data": digits}
    _, whole = bench.run(probe.run, "probe", settings(), inputs)
    epochs: list[int] = []
    train_epoch = Heads.train_epoch

    def dying(self: Heads, batches: Any, on_step: Any = None) -> Any:
        if self.epochs == 2 and 2 not in epochs:
            epochs.append(2)
            raise KilledError
        epochs.append(self.epochs)
        return train_epoch(self, batches, on_step)

    monkeypatch.setattr(Heads, "train_epoch", dying)
    with pytest.raises(KilledError):
        probe.run(bench.workspace("probe", settings(), inputs, "resumed"))
    _, resumed = bench.run(probe.run, "probe", settings(), inputs, "resumed")
    assert epochs == [0, 1, 2, 2]
    assert written(bench, resumed) == written(bench, whole)


def test_an_unknown_block_names_those_there_are(bench: Any, digits: Ref, network: Ref) -> None:
    with pytest.raises(InputError, match="no block named out_6") as caught:
        bench.run(probe.run, "probe", settings(blocks=("out_6",)), {"snapshot": network, "data": digits})
    assert "out_1 … out_5" in caught.value.do_next


def test_data_without_test_images_are_refused(bench: Any, tmp_path: Any) -> None:
    from PIL import Image

    from edm2core.config.settings import DataSettings
    from edm2core.stages import prepare

    for name in ("cat", "dog"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + 20 * number
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    data_settings = DataSettings(format="images", source=str(tmp_path / "pictures"), resolution=8, test_share=0.0)
    _, data = bench.run(prepare.run, "prepare", data_settings.model_dump(mode="json"))
    with pytest.raises(InputError, match="needs test images"):
        bench.run(probe.run, "probe", settings(blocks=("pixels",)), {"data": data.ref})


@pytest.mark.parametrize(
    ("train", "test", "grid", "words"),
    [
        ([0, 0, 2, 2], [0, 1, 2], False, "1 training image of every class, and has fewer of b."),
        ([0, 0, 1, 1, 2, 2], [0, 2], False, "1 test image of every class, and has fewer of b."),
        ([0, 0, 1, 2, 2], [0, 1, 2], True, "2 training images of every class, and has fewer of b; a grid holds some out"),
    ],
)
def test_a_class_that_cannot_be_learned_or_tested_is_named(train: list[int], test: list[int], grid: bool, words: str) -> None:
    shape = (1, 2, 2)
    data = Prepared(
        np.zeros((len(train), *shape), np.uint8),
        np.array(train),
        np.zeros((len(test), *shape), np.uint8),
        np.array(test),
        ("a", "b", "c"),
        PixelScale(),
        {},
    )
    asked = ProbeSettings(blocks=("out_1", "out_2") if grid else ("out_1",))
    with pytest.raises(InputError) as caught:
        probe.check(data, asked, "pets · prepare data")
    assert words in caught.value.what
