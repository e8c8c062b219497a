import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edm2core.config.recipes import recipe_names
from edm2core.config.settings import CalibrationSettings
from edm2core.plan import versions
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan, plan
from edm2core.plan.stages import STAGES
from edm2core.plan.subject import Subject, Swept
from edm2core.plan.tasks import Task, calibration_task, ema_task, own_key, redrawn, trajectory_ref, unverified

DIGITS = {f"data:digits/{config}": "builtin:digits" for config in "CEG"}
DATA = Path(__file__).parents[2] / "data"
GOLDEN = DATA / "golden_experiment.yaml"


def experiment(folder: Path, text: str) -> Experiment:
    (folder / "e.yaml").write_text(f"name: x\nrecipes: [digits/C]\nmetrics: [fd]\n{text}")
    return load_experiment(folder / "e.yaml")


def by_title(tasks: list[Task]) -> dict[str, Task]:
    return {task.title: task for task in tasks}


def test_a_task_comes_after_what_it_needs_and_each_result_once() -> None:
    tasks = plan(load_experiment(GOLDEN), DIGITS)
    seen = set()
    for task in tasks:
        assert set(task.needs) <= seen
        assert task.ref not in seen
        seen.add(task.ref)
    assert sum(task.stage == "prepare" for task in tasks) == 1


def test_titles_are_for_people() -> None:
    titles = by_title(plan(load_experiment(GOLDEN), DIGITS))
    assert "E · seed 0 · FD (digits features) at epoch 40" in titles
    assert "G · seed 0 · train to epoch 20" in titles
    assert "digits · linear classifier on raw pixels" in titles


def test_keys_are_what_they_were() -> None:
    """If this fails, results that users have would be computed again: a new key needs a new stage version, or a reason."""
    golden = json.loads((DATA / "golden_keys.json").read_text())
    assert {title: str(task.ref) for title, task in by_title(plan(load_experiment(GOLDEN), DIGITS)).items()} == golden


def published(folder: Path, recipe: str, metrics: str) -> dict[str, str]:
    """The keys of a published recipe's tasks by title, with these metrics, for the published sources."""
    (folder / "e.yaml").write_text(f"name: x\nrecipes: [{recipe}]\nepochs: [30]\nmetrics: [{metrics}]\ndiagnostics: true\n")
    read = load_experiment(folder / "e.yaml")
    source = read.recipes[0].data.digest or "builtin:digits"
    tasks = plan(read, {f"data:{recipe}": source, "inception": "sha256:6726825d", "dinov2": f"sha256:{0:064x}"})
    return {title: str(task.ref) for title, task in by_title(tasks).items()}


def test_keys_of_the_published_recipes_are_what_they_were(tmp_path: Path) -> None:
    golden = json.loads((DATA / "golden_keys_published.json").read_text())
    found = {recipe: published(tmp_path, recipe, "fd" if "digits" in recipe else "fid") for recipe in recipe_names()}
    assert found == golden["recipes"]


@pytest.mark.parametrize("recipe", ["cifar10/G", "paper/cifar10/G", "digits/C"])
def test_masks_by_image_moved_what_stands_on_a_training_with_dropout_and_nothing_else(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = "fd" if recipe == "digits/C" else "fid"
    now = published(tmp_path, recipe, metrics)
    monkeypatch.setattr(versions, "CHANGES", tuple(change for change in versions.CHANGES if change.stage != "snapshot"))
    before = published(tmp_path, recipe, metrics)
    stay = {title for title in now if " · seed 0 · " not in title}
    assert {title for title in now if now[title] == before[title]} == (stay if recipe == "cifar10/G" else set(now))


def test_keys_of_each_metric_are_what_they_were(tmp_path: Path) -> None:
    """Each alone, so that an estimator that changes moves its own."""
    golden = json.loads((DATA / "golden_keys_published.json").read_text())["metrics"]
    found = {name: published(tmp_path, "paper/cifar10/G", name) for name in golden}
    assert {name: next(ref for ref in refs.values() if ref.startswith("metrics/")) for name, refs in found.items()} == golden


def test_snapshots_of_a_trajectory_are_chained_and_share_its_key() -> None:
    snapshots = [task for task in plan(load_experiment(GOLDEN), DIGITS) if task.stage == "snapshot" and task.subject.recipe == "digits/E"]
    assert len({trajectory_ref(task) for task in snapshots}) == 1
    assert [task.after for task in snapshots] == [(), (snapshots[0].ref,), (snapshots[1].ref,)]
    assert all(task.wanted == (10, 20, 40) for task in snapshots)


def test_a_later_epoch_or_a_longer_training_re_keys_nothing(tmp_path: Path) -> None:
    short = by_title(plan(experiment(tmp_path, "epochs: [10, 20]\n"), DIGITS))
    long = by_title(plan(experiment(tmp_path, "epochs: [10, 20, 80]\noverrides: {training.epochs: 100}\n"), DIGITS))
    assert {title: task.ref for title, task in short.items()}.items() <= {title: task.ref for title, task in long.items()}.items()


def test_where_and_how_work_is_done_is_in_no_key(tmp_path: Path) -> None:
    plain = plan(experiment(tmp_path, "epochs: [10]\n"), DIGITS)
    other = plan(
        experiment(
            tmp_path, "epochs: [10]\noverrides: {training.micro_batch: 8, sample.batch: 7, sample.shard: 9, training.average_every: 2}\n"
        ),
        DIGITS,
    )
    assert [task.ref for task in plain] == [task.ref for task in other]


def test_what_changes_numbers_changes_only_what_stands_on_it(tmp_path: Path) -> None:
    plain = by_title(plan(experiment(tmp_path, "epochs: [10]\n"), DIGITS))
    other = by_title(plan(experiment(tmp_path, "epochs: [10]\nsample: {steps: 9}\n"), DIGITS))
    changed = {title for title in plain if plain[title].ref != other[title].ref}
    assert changed == {"C · seed 0 · 1000 samples at epoch 10", "C · seed 0 · FD (digits features) at epoch 10"}


def test_another_source_changes_everything(tmp_path: Path) -> None:
    read = experiment(tmp_path, "epochs: [10]\n")
    refs = [{task.ref for task in plan(read, {"data:digits/C": f"sha256:{digit * 64}"})} for digit in "ab"]
    assert not refs[0] & refs[1]


def test_one_draw_keeps_its_key_when_more_are_asked_for(tmp_path: Path) -> None:
    one = {task.ref for task in plan(experiment(tmp_path, "epochs: [10]\n"), DIGITS)}
    three = {task.ref for task in plan(experiment(tmp_path, "epochs: [10]\nsample: {draws: 3, ema: [fixed, '0.050']}\n"), DIGITS)}
    assert one < three


def test_an_average_that_no_snapshot_has_is_mixed_once_for_all_that_look_at_it(tmp_path: Path) -> None:
    text = "epochs: [30, 40]\nsample: {ema: [fixed, 0.05, 0.075], draws: 2}\nprobe: {ema: 0.075}\n"
    tasks = plan(experiment(tmp_path, text), DIGITS)
    by_ref, mixed = {task.ref: task for task in tasks}, [task for task in tasks if task.stage == "ema"]
    assert [task.title for task in mixed] == ["C · seed 0 · EMA 0.075 at epoch 30", "C · seed 0 · EMA 0.075 at epoch 40"]
    for task in tasks:
        if task.stage in ("sample", "probe") and "snapshot" in task.inputs:
            assert by_ref[task.inputs["snapshot"]].stage == ("ema" if task.subject.ema == "0.075" else "snapshot")
    assert len({task.title for task in tasks}) == len(tasks)


def test_a_sweep_re_keys_nothing_that_was_there_before(tmp_path: Path) -> None:
    plain = {task.ref for task in plan(experiment(tmp_path, "epochs: [40]\nsample: {ema: [fixed, '0.050']}\n"), DIGITS)}
    swept = {task.ref for task in plan(experiment(tmp_path, "epochs: [40]\nsample: {ema: [fixed, 0.05, 0.075, 0.15]}\n"), DIGITS)}
    assert plain < swept


def test_diagnostics_look_at_every_snapshot_and_re_key_nothing(tmp_path: Path) -> None:
    plain = plan(experiment(tmp_path, "epochs: [10, 40]\n"), DIGITS)
    tasks = plan(experiment(tmp_path, "epochs: [10, 40]\ndiagnostics: true\n"), DIGITS)
    added = [task for task in tasks if task.ref not in {other.ref for other in plain}]
    assert [task.title for task in added] == ["C · seed 0 · diagnostics at epoch 10", "C · seed 0 · diagnostics at epoch 40"]
    assert {ref.stage for task in added for ref in task.inputs.values()} == {"snapshot", "prepare"}


def test_diagnostics_look_into_the_average_that_is_probed_unless_told_otherwise(tmp_path: Path) -> None:
    for text, ema, stage in (
        ("probe: {ema: 0.05}\ndiagnostics: true\n", "0.050", "snapshot"),
        ("diagnostics: {ema: 0.075}\n", "0.075", "ema"),
    ):
        task = next(t for t in plan(experiment(tmp_path, f"epochs: [40]\n{text}"), DIGITS) if t.stage == "diagnostics")
        assert (task.settings["ema"], task.inputs["snapshot"].stage) == (ema, stage)


def test_a_swept_recipe_has_the_keys_of_one_with_that_value(tmp_path: Path) -> None:
    read = experiment(tmp_path, "epochs: [40]\nsweep: {training.lr: [1e-3, 2e-3]}\n")
    digests = {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes}
    swept = plan(read, digests)
    single = plan(experiment(tmp_path, "epochs: [40]\noverrides: {training.lr: 1e-3}\n"), DIGITS)
    assert {task.ref for task in single} < {task.ref for task in swept}
    titles = [task.title for task in swept if task.stage == "snapshot"]
    assert titles == ["C lr=0.001 · seed 0 · train to epoch 40", "C lr=0.002 · seed 0 · train to epoch 40"]
    assert swept[-1].subject.sweep == Swept("digits/C", {"training.lr": 0.002})


def test_a_setting_that_only_evaluates_is_swept_over_one_training(tmp_path: Path) -> None:
    read = experiment(tmp_path, "epochs: [40]\nsweep: {sample.precision: [fp32, bf16]}\n")
    digests = {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes}
    tasks = plan(read, digests)
    assert [task.title for task in tasks if task.stage == "snapshot"] == ["C · seed 0 · train to epoch 40"]
    assert [task.settings["precision"] for task in tasks if task.stage == "sample"] == ["fp32", "bf16"]
    single = plan(experiment(tmp_path, "epochs: [40]\n"), DIGITS)
    assert {task.ref for task in single} < {task.ref for task in tasks}


def test_a_sweep_of_solvers_and_steps_shares_all_but_samples_and_their_metrics(tmp_path: Path) -> None:
    text = "epochs: [40]\nsweep: {sample.solver: [heun, dpmpp_2m, dpmpp_2m_sde, unipc], sample.steps: [8, 18], sample.schedule: [karras]}\n"
    read = experiment(tmp_path, text)
    tasks = plan(read, {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes})
    plain = plan(experiment(tmp_path, "epochs: [40]\n"), DIGITS)
    assert {task.ref for task in plain} < {task.ref for task in tasks}
    assert Counter(task.stage for task in tasks if task.ref not in {other.ref for other in plain}) == {"sample": 7, "metrics": 7}
    drawn = [(task.settings["solver"], task.settings["steps"], task.settings["eta"]) for task in tasks if task.stage == "sample"]
    assert drawn[2:6] == [("dpmpp_2m", 8, 0.0), ("dpmpp_2m", 18, 0.0), ("dpmpp_2m_sde", 8, 1.0), ("dpmpp_2m_sde", 18, 1.0)]
    assert len({task.title for task in tasks}) == len(tasks)


def test_guidance_is_swept_over_one_training_and_stands_in_every_title(tmp_path: Path) -> None:
    conditional = "overrides: {network.classes: 10, training.label_dropout: 0.1}\n"
    text = f"epochs: [40]\n{conditional}sweep: {{sample.guidance.weight: [1.5, 2], sample.guidance.interval: [null, [0.2, 5]]}}\n"
    read = experiment(tmp_path, text)
    tasks = plan(read, {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes})
    plain = plan(experiment(tmp_path, f"epochs: [40]\n{conditional}"), DIGITS)
    added = [task for task in tasks if task.ref not in {other.ref for other in plain}]
    assert Counter(task.stage for task in added) == {"sample": 4, "metrics": 4}
    assert added[0].title == "C weight=1.5 interval=none · seed 0 · 1000 samples at epoch 40 · guided by 1.5"
    assert all(" · guided by " in task.title for task in added)
    assert not any("guided" in task.title for task in plain)


def test_weight_1_is_the_unguided_samples_whatever_guide_and_interval(tmp_path: Path) -> None:
    conditional = "overrides: {network.classes: 10, training.label_dropout: 0.1}\n"
    swept = "{sample.guidance.weight: [1, 2], sample.guidance.guide: [null, {epoch: 10}], sample.guidance.interval: [null, [0.2, 5]]}"
    read = experiment(tmp_path, f"epochs: [40]\n{conditional}sweep: {swept}\n")
    tasks = plan(read, {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes})
    assert Counter(task.stage for task in tasks if task.stage in ("sample", "metrics")) == {"sample": 5, "metrics": 5}
    (plain,) = [task for task in plan(experiment(tmp_path, f"epochs: [40]\n{conditional}"), DIGITS) if task.stage == "sample"]
    assert [task.settings["guidance"] for task in tasks if task.key == plain.key] == [None]


GUIDED = """\
name: guided
recipes: [digits/C, digits/E]
seeds: [0, 1]
epochs: [20, 40]
metrics: [fd]
probe: false
sample: {count: 100}
overrides: {training.ema_sigma_rel: [0.05, 0.1]}
sweep: {sample.guidance.weight: [1.5, 2], sample.guidance.guide: [GUIDES]}
"""


def guided(tmp_path: Path, guides: str, recipes: str = "[digits/C, digits/E]") -> Plan:
    file = tmp_path / "guided.yaml"
    file.write_text(GUIDED.replace("GUIDES", guides).replace("[digits/C, digits/E]", recipes))
    read = load_experiment(file)
    return plan(read, {f"data:{recipe.name}": "builtin:digits" for recipe in read.recipes})


def test_a_guide_is_an_input_of_samples_and_its_epoch_is_kept_by_the_one_training(tmp_path: Path) -> None:
    tasks = guided(tmp_path, "{epoch: 10}, {ema: 0.1}", "[digits/C]")
    trained = [task for task in tasks if task.stage == "snapshot"]
    assert [(task.subject.seed, task.subject.epoch) for task in trained] == [(seed, epoch) for seed in (0, 1) for epoch in (10, 20, 40)]
    assert {task.wanted for task in trained} == {(10, 20, 40)}
    assert all(before.ref in task.after for before, task in pairwise(trained) if before.subject.seed == task.subject.seed)
    samples = [task for task in tasks if task.stage == "sample"]
    assert len({task.key for task in samples}) == len(samples) == 2 * 2 * 2 * 2
    assert not unverified(tasks)
    for task in samples:
        guide, own = tasks.guide_of(task), tasks.snapshot_of(task)
        assert guide
        assert own
        assert guide.subject.seed == own.subject.seed
        by_epoch = "epoch 10" in task.title
        assert guide.subject.epoch == (10 if by_epoch else own.subject.epoch)
        assert task.settings["guidance"]["guide"]["ema"] == ("fixed" if by_epoch else "0.100")
    assert not any(task.subject.epoch == 10 for task in tasks if task.stage in ("sample", "metrics"))


def test_a_guide_named_in_another_way_is_the_same_samples(tmp_path: Path) -> None:
    keys = [{task.key for task in guided(tmp_path, guide, "[digits/C]") if task.stage == "sample"} for guide in (
        "{epoch: 10}", "{epoch: 10, ema: fixed}", "{recipe: digits/C, epoch: 10}"
    )]  # fmt: skip
    assert keys[0] == keys[1] == keys[2]
    assert keys[0].isdisjoint(task.key for task in guided(tmp_path, "{epoch: 11}", "[digits/C]"))


def test_a_guide_can_be_of_another_recipe_and_seed_or_an_average_to_be_mixed(tmp_path: Path) -> None:
    tasks = guided(tmp_path, "{recipe: digits/E, seed: 1, epoch: 30, ema: 0.08}")
    (mixed,) = [task for task in tasks if task.stage == "ema"]
    below = tasks.snapshot_of(mixed)
    assert below
    assert (below.short, below.subject.seed, below.subject.epoch) == ("E", 1, 30)
    assert {task.inputs["guide"] for task in tasks if task.stage == "sample"} == {mixed.ref}
    assert [task.subject.epoch for task in tasks if task.stage == "snapshot" and task.whose == "E · seed 1"] == [20, 30, 40]
    assert [task.subject.epoch for task in tasks if task.stage == "snapshot" and task.whose == "E · seed 0"] == [20, 40]
    again = redrawn(next(t for t in tasks if t.stage == "sample"), next(t for t in tasks if t.stage == "metrics"), 1)
    assert again[0].inputs["guide"] == mixed.ref


def test_listed_noise_levels_are_swept_beside_named_ones(tmp_path: Path) -> None:
    read = experiment(tmp_path, "epochs: [40]\nsweep: {sample.schedule: [uniform_logsnr, [80, 5, 0.1]]}\n")
    assert [recipe.sample.steps for recipe in read.recipes] == [18, 3]
    assert [recipe.name for recipe in read.recipes] == ["digits/C schedule=uniform_logsnr", "digits/C schedule=80, 5, 0.1"]


def test_all_metrics_of_an_extractor_are_one_task(tmp_path: Path) -> None:
    text = "epochs: [10]\nmetrics: [fd, precision_inception, precision, kid_inception, recall]\nsample: {count: 3000}\n"
    (tmp_path / "e.yaml").write_text(f"name: x\nrecipes: [digits/C]\n{text}inception_weights: w\n")
    tasks = plan(load_experiment(tmp_path / "e.yaml"), {**DIGITS, "inception": "sha256:6726825d"})
    found = {task.title: task.settings["metrics"] for task in tasks if task.stage == "metrics"}
    assert found == {
        "C · seed 0 · KID, Precision (Inception features) at epoch 10": ["kid", "precision"],
        "C · seed 0 · FD, Precision, Recall (digits features) at epoch 10": ["fd", "precision", "recall"],
    }


def test_imported_statistics_are_keyed_by_content_and_replace_our_own(tmp_path: Path) -> None:
    theirs = "{source: theirs.npz, extractor: inception, count: 50000, resolution: 32, origin: a page}"
    (tmp_path / "e.yaml").write_text(f"name: x\nrecipes: [cifar10/C]\nepochs: [10]\noverrides: {{reference: {theirs}}}\n")
    read = load_experiment(tmp_path / "e.yaml")
    digests = {"data:cifar10/C": f"md5:{0:032x}", "inception": "sha256:6726825d"}
    refs = []
    for digit in "ab":
        tasks = plan(read, {**digests, "reference:cifar10/C": f"sha256:{digit * 64}"})
        (reference,) = [task for task in tasks if task.stage == "reference"]
        assert reference.settings["digest"] == f"sha256:{digit * 64}"
        assert [task.inputs["reference"] for task in tasks if task.stage == "metrics"] == [reference.ref]
        refs.append(reference.ref)
    assert refs[0] != refs[1]


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**31), st.sets(st.integers(1, 60), min_size=1, max_size=6))
def test_a_task_survives_json(seed: int, epochs: set[int]) -> None:
    read = load_experiment(GOLDEN)
    changed = Experiment(**{**vars(read), "seeds": (seed,), "epochs": {name: tuple(sorted(epochs)) for name in read.epochs}})
    for task in plan(changed, DIGITS):
        assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task


def every_kind(folder: Path) -> list[Task]:
    """Tasks of every stage, of every shape that they have."""
    theirs = "{source: theirs.npz, extractor: inception, count: 50000, resolution: 32, origin: a page}"
    (folder / "e.yaml").write_text(
        "name: x\nrecipes: [cifar10/C, cifar10/G]\nepochs: [400, 800]\nmetrics: [fid, is, fid_pytorch_fid, recall_dinov2]\n"
        "diagnostics: {ema: 0.075}\nsample: {ema: [fixed, 0.05, 0.075], draws: 2}\nprobe: {knn: 20, protocol: ddae}\n"
        f"overrides: {{reference: {theirs}, start.checkpoint: runs/model_4.pth, data.source: 'https://host/x.tgz'}}\n"
    )
    read = load_experiment(folder / "e.yaml")
    digests = {f"{what}:{recipe.name}": f"sha256:{7:064x}" for what in ("data", "start", "reference") for recipe in read.recipes}
    tasks = plan(read, {**digests, "inception": "sha256:6726825d", "dinov2": f"sha256:{8:064x}"})
    measured = next(task for task in tasks if task.stage == "metrics")
    tasks = [*tasks, *redrawn(next(task for task in tasks if task.ref == measured.inputs["samples"]), measured, draw=7)]
    made = {task.stage: task.ref for task in tasks if task.stage in ("extractor", "reference")}
    inputs = {**made, "data": tasks[0].ref}
    for held_to, source in ((CalibrationSettings(against="test"), ""), (CalibrationSettings(against="images", name="a"), "images.zip")):
        tasks.append(calibration_task(held_to, inputs, "cifar10", source, source and f"sha256:{9:064x}"))
    snapshot = next(task for task in tasks if task.stage == "snapshot")
    return [*tasks, ema_task(snapshot.ref, 0.02, "an average", Subject(), force=True), *plan(load_experiment(GOLDEN), DIGITS)]


def test_every_task_verifies_by_its_own_record(tmp_path: Path) -> None:
    tasks = every_kind(tmp_path)
    assert {task.stage for task in tasks} == set(STAGES)
    assert not unverified(Task.from_json(json.loads(json.dumps(task.to_json()))) for task in tasks)


def test_a_task_of_an_earlier_version_verifies_by_the_version_that_it_records(tmp_path: Path) -> None:
    for task in every_kind(tmp_path):
        older = replace(task, version=task.version - 1)
        assert unverified([older]) == [older]
        assert not unverified([replace(older, key=own_key(older))])


def test_no_flipped_bit_of_a_plan_hides_what_it_needs(tmp_path: Path) -> None:
    tasks = [task for task in every_kind(tmp_path) if task.stage in ("prepare", "snapshot", "metrics", "calibration", "extractor")][-60::3]
    written, random = json.dumps([task.to_json() for task in tasks]).encode(), Random(0)
    found = 0
    for _ in range(250):
        flipped = bytearray(written)
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
        try:
            read = [Task.from_json(values) for values in json.loads(flipped)]
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if not unverified(read):
            found += 1
            assert needed(tasks) <= needed(read)
    assert found  # titles, and what is in no key


def needed(tasks: list[Task]) -> set[Ref | str]:
    """What must stay in the store for these tasks."""
    inputs = {ref for task in tasks for ref in (task.ref, *task.inputs.values())}
    trajectories = {trajectory_ref(task) for task in tasks if task.stage == "snapshot"}
    return inputs | trajectories | {str(task.settings.get("digest")) for task in tasks}


def sampled(folder: Path, rest: str, digests: dict[str, str] | None = None) -> list[int]:
    """How many samples each task of an experiment on digits draws."""
    (folder / "e.yaml").write_text(f"name: x\nrecipes: [digits/C]\nepochs: [10, 20]\nprobe: false\n{rest}\n")
    tasks = plan(load_experiment(folder / "e.yaml"), digests or {"data:digits/C": "builtin:digits"})
    return [task.settings["count"] for task in tasks if task.stage == "sample"]


@pytest.mark.parametrize(
    ("rest", "counts"),
    [
        ("metrics: []", []),
        ("metrics: []\nsample: true", [64, 64]),
        ("metrics: []\nsample: {steps: 12}", [64, 64]),
        ("metrics: []\nsample: {count: 100}", [100, 100]),
        ("metrics: []\nsample: true\noverrides: {sample.count: 9}", [9, 9]),
        ("metrics: []\noptional_metrics: [kid_inception]\nsample: true", [64, 64]),  # whose weights are not there
        ("metrics: []\noptional_metrics: [kid_inception]", []),
        ("metrics: [fd]\nsample: true", [1000, 1000]),
        ("metrics: [fd]", [1000, 1000]),
    ],
)
def test_samples_are_drawn_whenever_sample_is_asked_for(tmp_path: Path, rest: str, counts: list[int]) -> None:
    assert sampled(tmp_path, rest) == counts


def test_every_average_that_is_shown_without_metrics_is_sampled(tmp_path: Path) -> None:
    assert len(sampled(tmp_path, "metrics: []\nsample: {ema: [fixed, 0.05, 0.06]}")) == 6


def test_features_for_small_sets_need_nothing_that_is_brought(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("name: x\nrecipes: [digits/C]\nepochs: [10]\nprobe: false\nmetrics: [fd_filters, coverage_filters]\n")
    tasks = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})
    extractor = next(task for task in tasks if task.stage == "extractor")
    assert (extractor.title, set(extractor.inputs)) == ("digits · filters · feature extractor", {"data"})
    assert [task.settings["metrics"] for task in tasks if task.stage == "metrics"] == [["fd", "coverage"]]
