"""No test sleeps until something has probably happened: it waits for it, with a deadline."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

TESTS = Path(__file__).parent
WAITING = TESTS / "waiting.py"
CLUSTER = TESTS / "cluster"  # where outages of a given length and kills at random moments are what is tested


def sleeps(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).rpartition(".")[2] == "sleep":
            yield f"{file.relative_to(TESTS)}:{node.lineno}"


def test_no_test_sleeps() -> None:
    files = [file for file in TESTS.rglob("*.py") if file != WAITING and CLUSTER not in file.parents]
    assert len(files) > 150
    assert [place for file in files for place in sleeps(file)] == []
    assert list(sleeps(WAITING))


def test_the_first_true_answer_is_returned() -> None:
    answers = iter([0, None, "", "here", "later"])
    assert wait_until(lambda: next(answers), every_s=0.0) == "here"


def test_what_does_not_happen_in_time_fails_the_test_with_what_is_known() -> None:
    with pytest.raises(AssertionError, match=r"within 0 s\. Nothing was printed"):
        wait_until(lambda: False, seconds=0.0, failing=lambda: "Nothing was printed.")
