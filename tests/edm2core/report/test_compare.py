"""Experiments of different stores held against each other: only what differs, and nothing in a column that does not belong there."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edm2core.provenance.science import brief, science_of
from edm2core.report.compare import Comparison, Side, compare
from edm2core.report.comparison_page import as_json, render, write
from tests.edm2core.report.conftest import DEMO, OTHER, Fake, by_several_sciences
from tests.edm2core.report.test_html import Page

Two = Callable[..., Comparison]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def two(tmp_path: Path) -> Two:
    """The demo, and the demo with parts of its text replaced and lines added, in another store."""

    def build(changes: dict[str, str], *, also: dict[str, str] | None = None, leave_out: Any = lambda _: False) -> Comparison:
        texts = [DEMO, DEMO]
        for old, new in (also or {}).items():
            texts = [text.replace(old, new) for text in texts]
        for old, new in changes.items():
            texts[1] = texts[1].replace(old, new)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        one, other = (Fake(folder / name, text) for name, text in zip("ab", texts, strict=True))
        one.make()
        other.make(leave_out)
        return compare([Side(mark, f"{fake.store.uri}/runs/x", fake.report()) for mark, fake in (("A", one), ("B", other))])

    return build


SWEPT = {
    "digits/C, digits/E, digits/G": "digits/C",
    "[20, 40, 60]": "[60]",
    ", steps: 18": "",
    "{training.epochs: 60}": "{training.epochs: 60, network.classes: 10, training.label_dropout: 0.1}",
    "probe: {t: [4], blocks: [out_3], epochs: 15, batch: 512, lr: 4.0e-3}": "probe: false",
}
SAMPLERS = "sweep: {sample.solver: [heun, dpmpp_2m], sample.steps: [6, 18]}"
GUIDANCE = "sweep: {sample.guidance.weight: [1, 2, 3], sample.guidance.guide: [null, {epoch: 20}]}"


@pytest.mark.parametrize(
    ("sweep", "names"), [(SAMPLERS, ("frontiers", "What quality costs")), (GUIDANCE, ("guidance", "What guidance does"))]
)
def test_sweeps_over_samplers_and_guidance_are_compared_as_in_a_report(two: Two, sweep: str, names: tuple[str, str]) -> None:
    found = two({"seeds: [0]": "seeds: [1]"}, also={**SWEPT, "metrics: [fd]": f"metrics: [fd]\n{sweep}"})
    assert (found.tables, found.curves) == ([], [])
    page = render(found)
    assert page.index("A · digits/C @ 60") < page.index("B · digits/C @ 60") < page.index(f"{names[1]}</h2>")
    told = json.loads(as_json(found))[names[0]]
    assert [points["points"][0].get("recipe") or points["recipe"] for points in told] == ["A · digits/C", "B · digits/C"]


def test_only_what_differs_is_shown(two: Two) -> None:
    found = two({"training.epochs: 60}": "training.epochs: 60, network.dropout: 0.3}", "epochs: [20, 40, 60]": "epochs: [20, 60]"})
    assert {setting.name: setting.values for setting in found.settings} == {
        "epochs": {"A": "20, 40, 60", "B": "20, 60"},
        "network.dropout": {"A": found.settings[-1].values["A"], "B": "0.3"},
    }


def test_of_the_science_only_stages_that_differ_in_it_are_shown(tmp_path: Path) -> None:
    one = by_several_sciences(Fake(tmp_path / "a", DEMO), "none of them")
    other = by_several_sciences(Fake(tmp_path / "b", DEMO), "digits/G")
    found = compare([Side(mark, mark, fake.report()) for mark, fake in (("A", one), ("B", other))])
    here = brief(science_of("sample"))
    assert {setting.name: setting.values for setting in found.settings if "science" in setting.name} == {
        "science of sample": {"A": here, "B": ", ".join(sorted([here, brief(OTHER)]))},
    }


def test_a_setting_that_differs_between_recipes_of_one_experiment_alone_is_not_shown(two: Two) -> None:
    assert [setting.name for setting in two({"digits/C, digits/E, digits/G": "digits/C, digits/E"}).settings] == ["recipes"]


def test_experiments_without_a_common_recipe_are_held_against_each_other_setting_by_setting(two: Two) -> None:
    found = two({"[digits/E]": "[digits/G]"}, also={"digits/C, digits/E, digits/G": "digits/E"})
    assert "network.norm" in [setting.name for setting in found.settings]
    assert "sample.steps" not in [setting.name for setting in found.settings]


def test_best_and_last_of_all_stand_in_one_column(two: Two) -> None:
    (table,) = two({"network.dropout": "", "training.epochs: 60}": "training.epochs: 60, network.dropout: 0.3}"}).tables
    assert [line.recipe for line in table.lines] == [f"{mark} · digits/{rung}" for mark in "AB" for rung in "CEG"]
    assert [column.metric for column in table.columns] == ["fd_digits", "probe_accuracy"]
    assert all(len(line.cells) == 2 for line in table.lines)


def test_a_best_of_fewer_snapshots_says_so_and_only_a_difference_that_stands_is_marked(two: Two) -> None:
    found = two({"epochs: [20, 40, 60]": "epochs: [60]"})
    assert {cell.count for line in found.tables[0].lines for cell in line.cells.values()} == {1, 3}
    page = Page(render(found))
    assert "only value" in page.text
    assert not [attributes for _, attributes in page.elements if "lead" in str(attributes.get("class")).split()]


def test_values_of_another_n_or_protocol_have_a_column_of_their_own(two: Two) -> None:
    (table,) = two({"count: 2000": "count: 3000"}).tables
    assert [column.n for column in table.columns if column.metric == "fd_digits"] == [2000, 3000]
    (table,) = two({"steps: 18": "steps: 9"}).tables
    assert len([column for column in table.columns if column.metric == "fd_digits"]) == 2


def test_the_same_words_for_another_reference_are_told_apart(two: Two) -> None:
    one, other = two({}).sides
    results = {ref: replace(r, task=replace(r.task, version=r.task.version + 1)) for ref, r in other.report.results.items()}
    (table,) = compare([one, replace(other, report=replace(other.report, results=results))]).tables
    words = [column.protocol for column in table.columns if column.metric == "fd_digits"]
    assert [text.rsplit(", ", 1)[1] for text in words] == ["data and reference of A", "data and reference of B"]


def test_differences_are_between_experiments_and_not_of_the_same_results(two: Two) -> None:
    seeds = {"seeds: [0]": "seeds: [0, 1, 2]", "20, 40, 60": "60"}
    found = two({"training.epochs: 60}": "training.epochs: 60, network.dropout: 0.3}"}, also=seeds)
    pairs = {(d.one.recipe, d.other.recipe) for table in found.by_seeds.values() for d in table.differences}
    assert pairs == {(f"A · digits/{rung}", f"B · digits/{rung}") for rung in "CEG"}
    assert all(d.judgement is not None for table in found.by_seeds.values() for d in table.differences)
    same = two({}, also=seeds)
    assert [d for table in same.by_seeds.values() for d in table.differences] == []


def test_one_seed_is_no_claim(two: Two) -> None:
    assert two({"training.epochs: 60}": "training.epochs: 60, network.dropout: 0.3}"}).by_seeds == {}


def test_an_unfinished_experiment_says_so_and_shows_what_it_has(two: Two) -> None:
    found = two({}, leave_out=lambda task: task.subject.epoch == 60)
    page = Page(render(found))
    assert "tasks have no result. The page shows the others." in page.text
    assert "all 40 tasks are done" in page.text
    assert "best of 2 (of 3 wanted)" in page.text


def test_the_page_is_complete_in_itself_and_every_figure_has_its_place(two: Two) -> None:
    page = Page(render(two({"training.epochs: 60}": "training.epochs: 60, network.dropout: 0.3}"})))
    for tag, attributes in page.elements:
        assert not [name for name in ("src", "srcset") if attributes.get(name)], tag
        assert str(attributes.get("href") or "#").startswith("#")
    assert page.figures
    assert page.figures.keys() <= set(page.ids())
    assert len(page.ids()) == len(set(page.ids()))
    names = set(page.figures["metric-0"]["columns"]["recipe"])
    assert {"A · digits/C", "B · digits/G"} <= names
    assert set(page.figures["training-loss"]["columns"]["recipe"]) == names


def test_names_are_only_text(tmp_path: Path) -> None:
    fake = Fake(tmp_path).make()
    fake.name = HOSTILE
    page = render(compare([Side("A", HOSTILE, fake.report()), Side("B", "elsewhere", fake.report())]))
    assert "<img src=x" not in page


def test_the_files_say_the_same_and_name_the_rule_of_choice(two: Two, tmp_path: Path) -> None:
    found = two({"epochs: [20, 40, 60]": "epochs: [60]"})
    names = {path.name for path in write(found, tmp_path / "out")}
    assert names == {"comparison.html", "comparison.json", "best-and-last.csv", "settings.csv", "differences.csv"}
    facts = json.loads(as_json(found))
    with (tmp_path / "out" / "best-and-last.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(facts["best_and_last"])
    assert {line["choice"] for line in lines} == {"best of 3", "best of 1", "last epoch"}
    assert {value["experiment"] for value in facts["results"]} == {"A", "B"}
    assert facts["settings"] == [{"setting": "epochs", "A": "20, 40, 60", "B": "60"}]
