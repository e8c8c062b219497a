"""The served pages as a reader has them: narrow and wide, light and dark, by keyboard alone, and while a run goes on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from components.report.write import write_report
from edm2core.store.runs import Run, record
from pipelines.look.server import Server, listen
from tests.edm2core.report.conftest import Fake
from tests.edm2core.report.test_browser import CONTRAST, until
from tests.needs import CHROMIUM

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """The demo while it runs: one probe is missing."""
    fake = Fake(tmp_path_factory.mktemp("looked-at"))
    last = fake.find("probe", recipe="digits/G", epoch=60)
    fake.make(lambda task: task.ref == last.ref)
    record(Run("going", fake.store), fake.name, fake.text, fake.tasks, {})
    write_report(Run("going", fake.store), fake.name, fake.tasks, {}, "")
    return fake


@pytest.fixture(scope="module")
def server(fake: Fake) -> Iterator[Server]:
    server = listen(fake.store, "localhost", 0, exactly=True)
    threading.Thread(target=server.run, daemon=True).start()
    yield server
    server.stop()


def opened(chromium: Browser, url: str, width: int = 1600, scheme: str = "light") -> tuple[Page, list[str]]:
    """A page, and what its console says."""
    page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(url)
    return page, said


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(400, "light"), (1600, "dark"), (400, "dark"), (1600, "light")],
)
def test_pages_fit_and_can_be_read(chromium: Browser, server: Server, fake: Fake, width: int, scheme: str) -> None:
    for path in ("", "values/", "runs/going/", "results/", "results/metrics/", f"results/{fake.find('sample').ref}/"):
        page, said = opened(chromium, server.url + path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        assert page.evaluate(CONTRAST) == [], path
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth)"), path
        assert said == [], path
        page.close()


def test_the_keyboard_alone_leads_from_the_list_to_a_manifest(chromium: Browser, server: Server) -> None:
    page, _ = opened(chromium, server.url)

    def reach(words: str) -> None:
        for _ in range(200):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()").startswith(words):
                return
        raise AssertionError(f"the keyboard does not reach {words}")

    def follow(words: str) -> None:
        reach(words)
        with page.expect_navigation():
            page.keyboard.press("Enter")

    follow("going")
    reach("Tasks")
    page.keyboard.press("Enter")
    follow("metrics/")
    follow("manifest.json")
    assert '"stage": "metrics"' in page.inner_text("body")
    page.close()


def test_a_number_of_a_served_report_leads_to_its_manifest(chromium: Browser, server: Server) -> None:
    page, _ = opened(chromium, f"{server.url}store/runs/going/report.html")
    page.locator("tbody a.from").first.click()
    page.wait_for_url("**/manifest.json")
    assert '"stage": "metrics"' in page.inner_text("body")
    page.close()


def test_finding_leaves_what_matches(chromium: Browser, server: Server) -> None:
    page, _ = opened(chromium, server.url)
    page.get_by_label("Find").fill("digits/E going")
    assert page.locator("#runs tbody tr:visible").count() == 1
    page.get_by_label("Find").fill("nothing of that name")
    assert page.locator("#runs tbody tr:visible").count() == 0
    assert page.inner_text("#matches") == "0 shown"
    page.close()


def test_a_list_is_sorted_and_searched_by_any_column_and_never_ranks_across_protocols(chromium: Browser, server: Server) -> None:
    page, said = opened(chromium, f"{server.url}values/")
    shown = "[...document.querySelectorAll('#values tbody tr')].filter((row) => !row.hidden)"
    page.get_by_label("Sort by").select_option(label="Value")
    values = page.evaluate(f"{shown}.map((row) => [row.dataset.group, Number(row.cells[6].dataset.value)])")
    groups = [group for group, _ in values]
    assert len(set(groups)) == 2
    assert groups == sorted(groups, key=groups.index)  # each protocol's together
    assert all([v for g, v in values if g == one] == sorted(v for g, v in values if g == one) for one in groups)
    assert "never ranked against each other" in page.inner_text("#ranked")
    page.get_by_label("In column").select_option(label="Recipe")
    page.get_by_label("Find").fill("digits/E")
    assert set(page.evaluate(f"{shown}.map((row) => row.cells[2].textContent)")) == {"digits/E"}
    page.get_by_label("In column").select_option(label="Value")
    page.get_by_label("Find").fill("< 50")
    assert page.evaluate(f"{shown}.length") == 3
    assert said == []
    page.close()


def test_the_page_of_a_run_follows_it_and_keeps_the_keyboards_place(chromium: Browser, server: Server, fake: Fake, tmp_path: Path) -> None:
    page, said = opened(chromium, f"{server.url}runs/going/")
    assert "39 of 40 tasks are done" in page.inner_text("main")
    page.locator("#tasks summary").click()
    page.locator("#result-1").focus()
    fake.commit(fake.find("probe", recipe="digits/G", epoch=60))
    until(page, "document.querySelector('main').innerText.includes('40 of 40 tasks are done')")
    assert page.evaluate("document.activeElement.id") == "result-1"
    assert said == []
    page.close()
