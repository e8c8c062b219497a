"""A large run's page is short before anything is opened, and small enough to be sent."""

from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from edm2core.report.html import render
from tests.edm2core.report.conftest import DEMO, Fake
from tests.needs import CHROMIUM

LARGE = {
    "seeds: [0]": "seeds: [0, 1, 2]",
    "[20, 40, 60]": str(list(range(3, 61, 3))),
    "count: 2000": "count: 2000, ema: [fixed, 0.075]",
    "[fd]": "[fd, fd_filters, kid, precision, precision_filters, recall, density, coverage, memorisation]",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of 3 seeds, 2 averages, 10 metrics and 20 epochs."""
    folder, text = tmp_path_factory.mktemp("large"), DEMO
    for old, new in LARGE.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "report.html"
    path.write_text(render(Fake(folder, text + "diagnostics: true\n").make().report()))
    return path


def test_it_is_under_15_megabytes(page: Path) -> None:
    assert page.stat().st_size < 15_000_000


@pytest.mark.needs("chromium")
def test_it_is_at_most_6000_pixels_tall_at_1600(page: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM(), args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1600, "height": 900})
        shown.goto(page.as_uri())
        assert shown.evaluate("document.documentElement.scrollHeight") <= 6000
        assert shown.evaluate("document.documentElement.scrollWidth") == 1600
        first = shown.evaluate("document.querySelector('.verdict .sentence').getBoundingClientRect().top")
        assert first < 900  # the answer needs no scrolling
        browser.close()
