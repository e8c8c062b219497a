"""What a plan says of its tasks."""

from pathlib import Path

import pytest

from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan, plan
from edm2core.plan.subject import Subject, Swept
from edm2core.plan.tasks import Task

TEXT = """
name: x
recipes: [digits/C, digits/E]
epochs: [2, 4]
metrics: [fd]
sample: {count: 100, draws: 2, ema: [fixed, 0.05]}
diagnostics: {levels: 8}
sweep: {sample.steps: [8, 18]}
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    (tmp_path / "x.yaml").write_text(TEXT)
    return load_experiment(tmp_path / "x.yaml")


@pytest.fixture
def made(experiment: Experiment) -> Plan:
    return plan(experiment, {f"data:{recipe.name}": "builtin:digits" for recipe in experiment.recipes})


def stored(made: Plan) -> Plan:
    return Plan.parse([task.to_json() for task in made], made.stored_recipes())


def test_it_is_read_as_it_was_stored(made: Plan) -> None:
    assert stored(made) == made


def test_the_recipes_of_a_plan_are_the_experiments_even_if_an_earlier_version_stored_none(made: Plan, experiment: Experiment) -> None:
    assert made.recipes == {recipe.name: recipe for recipe in experiment.recipes}
    assert Plan.parse([task.to_json() for task in made], None).recipes == made.recipes


def test_a_section_that_no_task_uses_is_at_its_default_in_the_recipes_of_a_plan(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "name: x\nrecipes: [digits/C]\nepochs: [2]\nmetrics: []\nprobe: false\noverrides: {training.ema_beta: null, sample.steps: 9, "
        "sample.ema: ['0.050'], probe.ema: '0.050'}\n"
    )
    recipes = plan(load_experiment(tmp_path / "x.yaml"), {"data:digits/C": "builtin:digits"}).recipes
    assert (recipes["digits/C"].sample.steps, recipes["digits/C"].training.ema_beta) == (18, None)


def test_every_result_of_a_training_stands_on_the_snapshot_of_its_epoch(made: Plan) -> None:
    for task in made:
        snapshot = made.snapshot_of(task)
        assert (snapshot is not None) == bool(task.subject.recipe)
        if snapshot:
            assert (snapshot.stage, snapshot.subject.epoch) == ("snapshot", task.subject.epoch)


def test_what_a_task_stands_on_is_all_that_it_needs(made: Plan) -> None:
    probe = [task for task in made if task.stage == "probe"][-1]
    assert [task.stage for task in made.standing_on([probe])] == ["prepare", "snapshot", "snapshot", "probe"]


def test_titles_name_the_training_the_result_and_the_epoch(made: Plan) -> None:
    for task in made:
        if task.subject.recipe:
            assert task.title.startswith(f"{task.whose} · {made.what(task).partition(' · ')[0]}")
            assert f" epoch {task.subject.epoch}" in task.title
    assert made.what(next(task for task in made if task.stage == "metrics")) == "FD (digits features) · EMA fixed · draw 0"


def test_metrics_of_samples_are_named_by_their_extractor(made: Plan) -> None:
    assert {metric.result for task in made for metric in made.measured(task)} == {"fd_digits"}


@pytest.mark.parametrize(
    ("subject", "values"),
    [
        (Subject(), {}),
        (Subject("digits"), {"dataset": "digits"}),
        (Subject(extractor="dinov2"), {"extractor": "dinov2"}),
        (
            Subject("digits", "digits/C", 0, 5, Swept("digits/C", {"training.lr": 0.1}), "fixed", 0, recheck=True),
            {"dataset": "digits", "recipe": "digits/C", "seed": 0, "epoch": 5, "sweep": {"of": "digits/C", "at": {"training.lr": 0.1}}}
            | {"ema": "fixed", "draw": 0, "recheck": True},
        ),
    ],
)
def test_a_subject_is_stored_as_what_applies_to_it(subject: Subject, values: dict[str, object]) -> None:
    assert subject.to_json() == values
    assert list(subject.to_json()) == list(values)
    assert Subject.parse(values) == subject
    assert Subject.parse({**values, "of a later version": 1}) == subject


def test_a_task_without_a_plan_is_called_by_its_recipe() -> None:
    task = Task("snapshot", 1, {}, {}, "", "", Subject("digits", "digits/C", 3, 5))
    assert (task.whose, task.ref) == ("digits/C · seed 3", Ref("snapshot", ""))
