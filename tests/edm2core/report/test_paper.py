"""Tables for a paper: they hold every value with its conditions in the caption, and what LaTeX or Markdown would misread is escaped."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.report.paper import Entry, PaperTable, as_files, latex, markdown, write_tables
from tests.edm2core.report.conftest import Fake


@pytest.fixture
def files(another: Callable[..., Fake]) -> dict[str, str]:
    return as_files(another({"seeds: [0]": "seeds: [0, 1, 2]"}).report())


def test_the_main_table_is_recipe_by_metric_with_the_mean_and_deviation(files: dict[str, str]) -> None:
    text = files["results-digits.tex"]
    body = text[text.index("\\midrule") : text.index("\\bottomrule")]
    assert re.findall(r"^(?:digits/[CEG]) & ", body, re.MULTILINE) == ["digits/C & ", "digits/E & ", "digits/G & "]
    assert len(re.findall(r"\d+\.\d+ \$\\pm\$ \d+\.\d+", body)) == 3 * 4
    assert "over 3 training seeds" in text
    assert "n = 2000" in text


def test_no_value_stands_in_a_comment(files: dict[str, str]) -> None:
    comments = {line for text in files.values() for line in text.splitlines() if line.lstrip().startswith("%")}
    assert comments == {"% needs \\usepackage{booktabs}"}


def test_every_row_has_as_many_cells_as_the_heading(files: dict[str, str]) -> None:
    for name, text in files.items():
        if name.endswith(".md"):
            lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
            assert len({line.count("|") for line in lines}) == 1, name
        else:
            rows = text[text.index("\\midrule") :].splitlines()
            assert len({row.replace("\\&", "").count("&") for row in rows if row.endswith("\\\\")}) == 1, name


def test_p_is_called_corrected(files: dict[str, str]) -> None:
    differences = [text for name, text in files.items() if name.startswith("differences")]
    assert differences
    assert all("corrected p" in text for text in differences)


def test_metrics_can_be_chosen(another: Callable[..., Fake], tmp_path: Path) -> None:
    report = another({"seeds: [0]": "seeds: [0, 1]"}).report()
    paths = write_tables(report, tmp_path / "out", ["probe_accuracy"])
    assert {path.name for path in paths} == {
        f"{name}.{end}" for name in ("results-digits", "means-probe_accuracy", "differences-probe_accuracy") for end in ("tex", "md")
    }
    assert "FD" not in (tmp_path / "out" / "results-digits.tex").read_text()


def test_what_would_be_misread_is_escaped() -> None:
    text = "a_b & 5 % $x^2 #1 {y} ~ \\z |"
    table = PaperTable("t", text, (), ("Recipe", text), ((Entry(text), Entry("1", bold=True)),))
    assert "a\\_b \\& 5 \\% \\$x\\textasciicircum{}2 \\#1 \\{y\\} \\textasciitilde{} \\textbackslash{}z |" in latex(table)
    assert "a\\_b & 5 % $x^2 #1 {y} ~ \\\\z \\|" in markdown(table)
    assert "\\textbf{1}" in latex(table)
