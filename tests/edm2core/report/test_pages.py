"""Every page of an experiment of every shape, alone and beside others."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import StrictUndefined

from edm2core.report import comparison_page, write
from edm2core.report.compare import Side, compare
from edm2core.report.html import environment, render
from tests.edm2core.report.covered import Rendered
from tests.edm2core.report.shapes import HOSTILE, SHAPES, made
from tests.edm2core.report.test_html import Page

VOID = {"meta", "img", "input", "br", "hr", "link", "th", "td", "col"}  # th and td are closed, and counted apart
REFERS = ("for", "aria-labelledby", "aria-describedby")


@dataclass
class Pages:
    """Pages by the shapes that they are of, each rendered when it is first asked for."""

    made: dict[tuple[str, ...], str] = field(default_factory=dict)
    rendered: Rendered = field(default_factory=Rendered)

    def of(self, *shapes: str) -> str:
        if shapes not in self.made:
            self.made[shapes] = _page(*shapes)
        return self.made[shapes]


class Tags(HTMLParser):
    """The tags of a page that were closed by another or never."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(f"</{tag}> at line {self.getpos()[0]}")


@pytest.fixture(scope="module")
def pages() -> Iterator[Pages]:
    """The report of a shape, and it compared with several seeds and with one of its own kind."""
    pages = Pages()
    with pytest.MonkeyPatch.context() as patch:
        pages.rendered.watch(patch)
        yield pages
    environment.cache_clear()


def _page(shape: str, *beside: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edm2core.report.html.packed_vega", lambda: "code")  # megabytes that no template looks into
        patch.setattr("edm2core.report.comparison_page.packed_vega", lambda: "code")
        for name, most in SHAPES[shape].limits.items():
            patch.setattr(name, most)
        if not beside:
            return render(made(shape).report)
        sides = [Side(mark, f"store/runs/{mark}", made(name).report) for mark, name in zip("AB", (shape, *beside), strict=True)]
        return comparison_page.render(compare(sides))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beside", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("several seeds", "its own kind"))])
def test_a_page_is_whole(pages: Pages, shape: str, beside: str) -> None:
    text = pages.of(shape, *([shape if beside == "its own kind" else beside] if beside else []))
    text.encode()
    page, tags = Page(text), Tags(text)
    assert (tags.wrong, tags.open) == ([], [])
    ids = page.ids()
    assert len(ids) == len(set(ids))
    assert page.figures.keys() <= set(ids)
    for tag, attributes in page.elements:
        refers = [attributes.get(name) for name in REFERS] + [str(attributes.get("href") or "")[1:]] * str(
            attributes.get("href")
        ).startswith("#")
        assert {one for words in refers if words for one in words.split()} <= set(ids), (tag, attributes)
    assert "<img src=x" not in text
    assert not {"None", "Undefined", "nan", "inf"} & {words.strip() for words in page.words}


@pytest.mark.slow
def test_every_part_of_every_template_is_rendered_by_some_shape(pages: Pages) -> None:
    for shape in SHAPES:
        for beside in ((), ("several seeds",), (shape,)):
            pages.of(shape, *beside)
    missed = list(pages.rendered.missed(environment()))
    assert not missed, "\n".join(missed)
    assert {name for name in environment().list_templates() if name.endswith(".html")} <= pages.rendered.there.keys()


def test_a_template_that_names_what_nobody_gives_it_fails() -> None:
    assert environment().undefined is StrictUndefined


def test_names_that_no_file_can_hold_are_written_out(pages: Pages, tmp_path: Path) -> None:
    assert "caf\\xe9 \\ud800" in Page(pages.of("badly named")).text
    shape = made("badly named")
    write(shape.report, tmp_path)
    comparison_page.write(compare([Side("A", HOSTILE, shape.report), Side("B", "elsewhere", made("several seeds").report)]), tmp_path)
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        if path.suffix == ".csv":
            assert list(csv.reader(io.StringIO(text)))
