"""Who made a report's results: said at its top where it is not this code, and in full under provenance."""

import json

import pytest

from edm2core.plan.manifest import diff_path
from edm2core.provenance.science import science_of
from edm2core.report.html import render
from edm2core.report.sciences import sciences, several
from edm2core.report.write import as_json
from tests.edm2core.report.conftest import DIFF, OTHER, Fake, by_several_sciences
from tests.edm2core.report.test_html import Page


@pytest.fixture
def mixed(fake: Fake) -> Fake:
    """All by this code's science, but what belongs to E: its training went on under it after another's, its samples are another's."""
    return by_several_sciences(fake, "digits/E")


def test_results_of_other_science_are_counted_and_named(mixed: Fake) -> None:
    page = render(mixed.report())
    assert f"3 of {len(mixed.tasks)} results were made by other science than that of this code" in page
    assert "what computes sample differs in 0.1.0+4f2a9c1d77e0." in page
    assert f"2 of {len(mixed.tasks)} results were made by several sciences" in page


def test_provenance_lists_every_science_and_leads_to_changes(mixed: Fake) -> None:
    page = render(mixed.report())
    assert f'href="../../{diff_path(DIFF)}"' in page
    assert "<code>0123456789</code> (other)" in page
    found = {(one.stage, one.whose): one.results for one in sciences(mixed.report())}
    assert found["sample", "other"] == 3
    assert found["sample", "this code's"] == 6


def test_a_training_of_two_sciences_is_named_with_the_step(mixed: Fake) -> None:
    found = several(mixed.report())
    assert len(found) == 2
    assert all(parts == f"0123456789 from step 0, then {science_of('snapshot')[:10]} from step 460" for parts in found.values())
    assert "made by several sciences: 0123456789 from step 0" in render(mixed.report())


def test_results_json_says_the_same(mixed: Fake) -> None:
    facts = json.loads(as_json(mixed.report()))["run"]["science"]
    assert {(one["stage"], one["whose"]): one["results"] for one in facts["made"]}["sample", "other"] == 3
    assert len(facts["several"]) == 2
    (other,) = [one for one in facts["made"] if one["whose"] == "other"]
    assert other["diffs"] == [DIFF]


def test_where_it_was_not_recorded_it_is_called_unknown(demo: Fake) -> None:
    assert {one.whose for one in sciences(demo.report())} == {"unknown"}
    assert "results were made by unknown science" in render(demo.report())


def test_the_curve_marks_where_other_science_goes_on(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.make()
    report = fake.report()
    for lines in report.curves.values():
        for line in lines:
            if line.get("restart"):
                line |= {"science": OTHER, "science_before": "unknown"}
    page = render(report)
    assert "under other science (0123456789)" in Page(page).figures["training-loss"]["columns"]["restart"]
