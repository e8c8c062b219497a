from pathlib import Path

import pytest
import yaml

from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.network_cost import network_cost
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from pipelines.estimate import GPUS, UTILISATION, Estimate, estimates

DIGESTS = {"data:cifar10/E": "md5:" + "0" * 32, "data:digits/C": "builtin:digits", "inception": "sha256:6726825d"}


def planned(folder: Path, recipe: str, **settings: object) -> list[Task]:
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "recipes": [recipe], "inception_weights": "w", **settings}))
    experiment = load_experiment(file)
    return plan(experiment, {**DIGESTS, **{f"data:{each.name}": DIGESTS[f"data:{recipe}"] for each in experiment.recipes}})


def by_stage(tasks: list[Task], costs: dict[Ref, Estimate]) -> dict[str, list[Estimate]]:
    stages: dict[str, list[Estimate]] = {}
    for task in tasks:
        stages.setdefault(task.stage, []).append(costs[task.ref])
    return stages


def test_training_costs_three_forwards_for_each_image_of_each_epoch_once(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", epochs=[500, 2000])
    stages = by_stage(tasks, estimates(tasks, lambda ref: None))
    recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
    forward = network_cost(recipe.network, recipe.diffusion).flops
    assert [cost.flops for cost in stages["snapshot"]] == [3 * forward * 50_000 * epochs for epochs in (500, 1500)]
    assert stages["sample"][0].flops == 35 * forward * 50_000
    assert stages["sample"][0].stored == 50_000 * 3 * 32 * 32
    assert stages["prepare"][0].stored == 60_000 * 3 * 32 * 32


def test_only_the_first_snapshot_of_a_training_pays_for_its_states(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", epochs=[500, 1000])
    first, second = by_stage(tasks, estimates(tasks, lambda ref: None))["snapshot"]
    recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
    parameters = network_cost(recipe.network, recipe.diffusion).parameters
    assert first.stored is not None
    assert second.stored is not None
    assert first.stored - second.stored == 2 * 4 * (3 + 3) * parameters  # weights, two moments, three averages


def test_stored_averages_are_64_of_each_width_in_three_bytes_a_number(tmp_path: Path) -> None:
    for epochs in ([2000], [100, 777, 2000]):
        tasks = planned(tmp_path, "cifar10/E", epochs=epochs)
        snapshots = by_stage(tasks, estimates(tasks, lambda ref: None))["snapshot"]
        recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
        assert sum(cost.averages for cost in snapshots) == 64 * 2 * 3 * network_cost(recipe.network, recipe.diffusion).parameters


def test_a_sweep_samples_once_for_each_width(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", epochs=[2000], sample={"ema": ["fixed", 0.05, 0.075]})
    stages = by_stage(tasks, estimates(tasks, lambda ref: None))
    assert len({cost.flops for cost in stages["sample"]}) == 1
    assert (len(stages["sample"]), len(stages["ema"])) == (3, 1)
    recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
    assert stages["ema"][0].stored == 4 * network_cost(recipe.network, recipe.diffusion).parameters


def test_diagnostics_evaluate_each_split_at_each_level_and_the_activations_once(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", epochs=[2000], diagnostics={"images": 20_000, "levels": 4})
    (cost,) = by_stage(tasks, estimates(tasks, lambda ref: None))["diagnostics"]
    recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
    assert cost.flops == network_cost(recipe.network, recipe.diffusion).flops * (20_000 * 5 + 10_000 * 4)


def test_hours_are_by_the_precision_that_the_work_runs_in() -> None:
    gpu = GPUS["a100"]
    assert Estimate(1e15, 0, half=True).seconds(gpu) == pytest.approx(1e15 / (gpu.half * UTILISATION))
    assert Estimate(1e15, 0, half=False).seconds(gpu) == pytest.approx(1e15 / (gpu.single * UTILISATION))
    assert Estimate(None).seconds(gpu) is None


def test_own_images_are_counted_once_they_are_prepared(tmp_path: Path) -> None:
    own = {"data.format": "images", "data.source": "x.zip", "data.resolution": 32}
    tasks = planned(tmp_path, "cifar10/E", epochs=[10], metrics=[], overrides=own)
    assert by_stage(tasks, estimates(tasks, lambda ref: None))["snapshot"][0].flops is None

    def prepared(ref: Ref) -> Manifest:
        return Manifest(ref.stage, 1, ref.key, "", {}, {}, {}, "attempt", {}, {"counts": {"train": 70, "test": 30}})

    costs = by_stage(tasks, estimates(tasks, prepared))
    assert costs["snapshot"][0].flops is not None
    assert costs["prepare"][0].stored == 100 * 3 * 32 * 32


def test_a_grid_looks_twice_at_each_image_and_keeps_what_it_saw(tmp_path: Path) -> None:
    tasks = planned(tmp_path, "cifar10/E", epochs=[2000], probe={"t": [3, 4, 5], "blocks": ["all"]})
    grid = by_stage(tasks, estimates(tasks, lambda ref: None))["probe"][-1]
    recipe = load_experiment(tmp_path / "e.yaml").recipes[0]
    forward = network_cost(recipe.network, recipe.diffusion).flops
    assert grid.flops == 3 * forward * (2 * 50_000 + 10_000)
    assert grid.scratch == 2 * (2 * 50_000 + 10_000) * 3 * (12 * 256 + 3 * 128)  # half precision
    tasks = planned(tmp_path, "cifar10/E", epochs=[2000], probe={"seeds": [0, 1]})
    one = by_stage(tasks, estimates(tasks, lambda ref: None))["probe"][-1]
    assert (one.flops, one.scratch) == (2 * forward * (15 * 50_000 + 10_000), 0)
    tasks = planned(tmp_path, "cifar10/E", epochs=[2000], probe={"knn": 20})
    near = by_stage(tasks, estimates(tasks, lambda ref: None))["probe"][-1]
    assert near.scratch == 2 * (2 * 50_000 + 10_000) * 256
