"""The line that says that a change moved no number."""

import shutil
import subprocess
from pathlib import Path

import pytest

from edm2core.provenance.science import EQUAL, PACKAGE, read_equal
from tests.same_science import add, digests, digests_at, line

GIT = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]


def test_a_refactoring_adds_one_line_for_all_stages_whose_science_it_changes(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "edm2core", ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, *command], cwd=tmp_path, check=True)
    before = digests_at("HEAD", tmp_path)
    assert line("nothing", before, digests(tmp_path)) == ""
    source = tmp_path / "edm2core" / "data/scale.py"
    source.write_text(source.read_text() + "\n\ndef _another() -> None:\n    return None\n")
    now = digests(tmp_path)
    entry = line('the "affine" has a function more', before, now)
    assert entry.count("\n") == 1
    known = read_equal(add(EQUAL.read_text(), entry))
    for stage in before:
        assert known.get(now[stage], now[stage]) == known.get(before[stage], before[stage])
    assert now["snapshot"] != before["snapshot"]
    assert now["extractor"] in (before["extractor"], *known)


def test_equal_sciences_of_several_lines_are_joined() -> None:
    text = add(add("# a comment\n[]\n", line("one", {"s": "a" * 20}, {"s": "b" * 20})), line("two", {"s": "a" * 20}, {"s": "c" * 20}))
    text = add(text, line("both", {"s": "c" * 20}, {"s": "d" * 20}))
    assert read_equal(text) == dict.fromkeys(("b" * 20, "c" * 20, "d" * 20), "a" * 20)
    joined = add(text, line("of another", {"s": "e" * 20}, {"s": "d" * 20}))
    assert len(set(read_equal(joined).values())) == 1
    assert len(read_equal(joined)) == 4


def test_a_revision_that_is_not_there_is_named(tmp_path: Path) -> None:
    subprocess.run([*GIT, "init", "-q"], cwd=tmp_path, check=True)
    with pytest.raises(SystemExit, match="There is no revision nowhere"):
        digests_at("nowhere", tmp_path)
