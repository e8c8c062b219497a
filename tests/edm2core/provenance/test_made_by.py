"""What is said of results that this code's science did not make."""

from typing import Any

import pytest

from edm2core.plan.manifest import Manifest
from edm2core.provenance import science
from edm2core.provenance.made_by import made_by, several_of
from edm2core.provenance.science import science_of

A, B = "a" * 20, "b" * 20


def made(stage: str, by: str, version: str = "0.1.0+old", **metadata: Any) -> Manifest:
    provenance = {"science": by, "code_version": version} if by else {"code_version": version}
    return Manifest(stage, 1, "k", f"the {stage}", {}, {}, {}, "a", {}, metadata, provenance)


def test_results_by_the_present_science_need_no_line() -> None:
    assert made_by([made("sample", science_of("sample")), made("metrics", science_of("metrics"))]).lines == []
    assert made_by([]).lines == []


def test_others_are_counted_with_their_stages_and_versions() -> None:
    results = [made("sample", science_of("sample")), made("sample", A), made("sample", A), made("snapshot", A), made("probe", B, "0.2.0")]
    assert made_by(results).lines == [
        "4 of 5 results were made by other science than that of this code: "
        "what computes probe, sample, snapshot differs in 0.1.0+old, 0.2.0."
    ]


def test_the_science_of_one_stage_is_not_that_of_another() -> None:
    assert len(made_by([made("sample", science_of("metrics"))]).lines) == 1


def test_what_was_made_before_it_was_recorded_is_unknown() -> None:
    found = made_by([made("sample", ""), made("sample", science_of("sample"))])
    assert found.lines == ["1 of 2 results was made by unknown science, before that was recorded (0.1.0+old)."]


def test_a_training_of_two_sciences_is_named() -> None:
    found = made_by([made("snapshot", science_of("snapshot"), sciences=[{"from_step": 0, "science": A}])])
    assert found.lines == ["1 of 1 result was made by several sciences one after the other: the snapshot."]


def test_equal_sciences_are_this_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(science, "equal", lambda: {science_of("sample"): A})
    assert made_by([made("sample", A)]).lines == []


def test_what_is_mixed_from_averages_of_several_sciences_says_which() -> None:
    trained = made("snapshot", B, sciences=[{"from_step": 0, "science": A}, {"from_step": 5, "science": B}])
    assert several_of([made("average", A), made("average", A)]) == []
    assert several_of([made("average", A), trained]) == [{"science": A}, {"science": B}]
    assert several_of([made("average", ""), made("snapshot", B)]) == [{"science": "unknown"}, {"science": B}]
