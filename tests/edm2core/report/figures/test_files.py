"""Figures as files, and what the page is given of them."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from edm2core.report.drawings import drawings
from edm2core.report.figures import Figure
from edm2core.report.figures.files import as_svg, escaped, write_figures
from edm2core.report.figures.page import packed_figures

if TYPE_CHECKING:
    from conftest import Fake

SPEC = {"mark": "point", "encoding": {"x": {"field": "at", "type": "quantitative"}}}
ROWS = [{"training": who, "epoch": epoch, "at": 1 / 3} for who in ("a", "b") for epoch in (1, 2)]
MAP = Figure("map", "A <b> & C", "What it says.", ROWS, SPEC, choices={"epoch": [2, 1], "training": ["a", "b"]})


def test_a_file_has_title_caption_and_the_pages_fonts() -> None:
    svg = as_svg(MAP)
    assert "A &lt;b&gt; &amp; C" in svg
    assert "What it says." in svg
    assert "system-ui" in svg
    assert "epoch 2 · training a" in svg


def test_every_training_has_its_drawing_and_all_numbers_are_in_one_table(tmp_path: Path) -> None:
    paths = write_figures([MAP], tmp_path)
    assert sorted(path.name for path in paths) == ["figures.tex", "map-0.pdf", "map-0.svg", "map-1.pdf", "map-1.svg", "map.csv"]
    assert (tmp_path / "map-0.pdf").read_bytes().startswith(b"%PDF")
    table = list(csv.DictReader(io.StringIO((tmp_path / "map.csv").read_text())))
    assert len(table) == 4
    assert float(table[0]["at"]) == 1 / 3
    tex = (tmp_path / "figures.tex").read_text()
    assert "\\includegraphics{map-1.pdf}" in tex
    assert "\\caption{A $<$b$>$ \\& C, epoch 2, training b. What it says.}" in tex


def test_what_latex_would_misread_is_escaped() -> None:
    assert escaped("50 % of a_b · λ(σ)") == "50 \\% of a\\_b $\\cdot$ $\\lambda$($\\sigma$)"


def test_the_page_is_given_every_number_once_and_both_themes() -> None:
    facts = json.loads(gzip.decompress(base64.b64decode(packed_figures([MAP]))))
    assert facts["figures"]["map"]["columns"] == {"training": ["a", "a", "b", "b"], "epoch": [1, 2, 1, 2], "at": [0.333333] * 4}
    assert facts["figures"]["map"]["chosen"] == {"epoch": 2, "training": "a"}
    assert facts["themes"].keys() == {"light", "dark"}


def test_every_figure_has_an_id_a_title_a_caption_and_numbers(full: Fake) -> None:
    figures = drawings(full.report()).all
    assert len({figure.id for figure in figures}) == len(figures) > 12
    assert all(figure.title and figure.caption and figure.shown for figure in figures)
