"""The page as a reader has it: narrow and wide, light and dark, by keyboard alone, in Kubeflow's frame, while its run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser, Error, Frame, Page, sync_playwright

from edm2core.report import RunInfo
from edm2core.report.html import render
from tests.needs import CHROMIUM
from tests.waiting import wait_until

if TYPE_CHECKING:
    from conftest import Fake

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.slow]

NOTES = "# Why\n\n*Lower* is better; see [the paper](https://arxiv.org/abs/2312.02696).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
DRAWN = "[...document.querySelectorAll('.canvas')].every((canvas) => !canvas.checkVisibility() || canvas.querySelector('svg'))"
CONTRAST = """() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number).map((n, i) => (text.startsWith('color(') && i < 3 ? 255 * n : n));
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = numbers(getComputedStyle(e).backgroundColor);
      if (found.length < 4 || found[3] > 0.9) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  document.querySelectorAll('body *').forEach((e) => {
    if (!e.checkVisibility() || e.closest('svg, .canvas')) return;
    if (![...e.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) return;
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([e.className || e.tagName, e.textContent.trim().slice(0, 30), ratio]);
  });
  return poor;
}"""


def until(page: Page | Frame, true: str) -> None:
    """Wait for an expression; the page's own policy forbids playwright to do so inside it."""

    def is_true() -> bool:
        with suppress(Error):  # it is just being loaded again
            return bool(page.evaluate(true))
        return False

    wait_until(is_true, failing=lambda: true)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM(), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def html(full: Fake) -> str:
    info = RunInfo(absent={"is": "The experiment names no weights of Inception."}, notes=NOTES, experiment=full.text)
    return render(full.report(info))


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a page's text in the browser; whatever it complains of, or asks the network for, fails the test."""
    troubles: list[str] = []
    contexts = []

    def build(text: str, width: int = 1600, scheme: Any = "light", file: str = "report.html", clock: bool = False) -> Page:
        path = tmp_path / file
        path.write_text(text)
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else troubles.append(asked.url))
        if clock:
            page.clock.install(time=time.time())
        page.goto(path.as_uri())
        if not clock:
            until(page, DRAWN)
        return page

    yield build
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(400, "light"), (1600, "dark"), (400, "dark"), (1600, "light")],
)
def test_it_fits_draws_every_figure_and_can_be_read(show: Callable[..., Page], html: str, width: int, scheme: str) -> None:
    page = show(html, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelectorAll('.canvas').length") >= 12
    assert page.evaluate(CONTRAST) == []


def test_everything_can_be_reached_with_the_tab_key_and_shows_where_it_is(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = false; })")
    wanted = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]"
        ".filter((e) => e.checkVisibility() && !e.disabled).map((e, i) => { e.dataset.stop = i; return i; })"
    )
    reached = []
    for _ in range(len(wanted) + 5):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.dataset.stop, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 1, e.outerHTML.slice(0, 90)]; })()"
        )
        if found[0] is None:
            break
        assert found[1], f"no visible focus: {found[2]}"
        reached.append(int(found[0]))
    assert reached == wanted  # in the order in which they stand


def test_sliders_toggles_and_cells_obey_the_keyboard(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.focus("#samples input[type=range]")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#samples output") == "40"
    assert set(
        page.eval_on_selector_all("#samples .frame", "all => all.filter((e) => e.checkVisibility()).map((e) => e.dataset.epoch)")
    ) == {"40"}
    assert page.get_attribute("#samples input[type=range]", "aria-valuetext") == "epoch 40"
    page.focus("[data-toggle='digits/E']")
    page.keyboard.press("Enter")
    assert page.get_attribute("[data-toggle='digits/E']", "aria-pressed") == "false"
    lines = "document.querySelectorAll('#metric-0 .mark-line path').length"
    until(page, f"{lines} === 6")  # of two recipes and three averages
    assert page.locator("#results tr[data-recipe='digits/E']").first.is_hidden()
    page.keyboard.press("Space")
    until(page, f"{lines} === 9")
    page.focus("#metric-0 [data-seeds]")
    page.keyboard.press("Space")
    until(page, f"{lines} === 27")  # two seeds beside each mean
    before = page.inner_html("#metric-0 .canvas")
    page.focus("#metric-0 [data-log=y]")
    page.keyboard.press("Space")
    until(page, f"document.querySelector('#metric-0 .canvas').innerHTML !== {json.dumps(before)}")
    page.focus(".columns[tabindex]")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    marked = page.eval_on_selector(
        ".columns[tabindex]", "e => [e.className, e.style.getPropertyValue('--column'), e.style.getPropertyValue('--row')]"
    )
    assert marked == ["columns marked", "1", "1"]
    page.keyboard.press("Escape")
    assert page.get_attribute(".columns[tabindex]", "class") == "columns"


def test_pointing_at_a_curve_and_stepping_along_it_say_its_values(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.locator("#metric-0 .canvas").scroll_into_view_if_needed()
    box = page.locator("#metric-0 .canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=3)
    page.wait_for_selector("#tip strong")
    assert page.inner_text("#tip strong") == "epoch 40"
    assert page.locator("#tip div").count() == 9
    page.mouse.move(1, 1)
    page.focus("#metric-0 .canvas")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tip strong") == "epoch 40"
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


@pytest.mark.parametrize("kind", ["svg", "png", "csv"])
def test_a_figure_leaves_the_page(show: Callable[..., Page], html: str, kind: str) -> None:
    page = show(html, scheme="dark")
    with page.expect_download() as waiting:
        page.click(f"#metric-0 [data-save={kind}]")
    assert waiting.value.suggested_filename == f"metric-0.{kind}"
    data = Path(waiting.value.path()).read_bytes()
    if kind == "png":
        assert data.startswith(b"\x89PNG")
    else:
        text = data.decode()
        wanted = ("FD (digits features)", "lower is better", "one standard deviation", 'fill="#ffffff"', "system-ui")
        assert all(part in text for part in (wanted if kind == "svg" else ("recipe,ema,epoch,seed,seeds,value", "digits/C,fixed,20,,2,")))


def test_what_is_printed_is_open_and_in_light_colours_and_ends_each_section_with_its_page(show: Callable[..., Page], html: str) -> None:
    page = show(html, scheme="dark")
    is_open = "document.querySelector('#training > details').open"
    assert page.evaluate(is_open) is False
    color = "getComputedStyle(document.querySelector('#metric-0 .mark-line path')).stroke"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    until(page, f"{color} === 'rgb(52, 89, 166)'")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('#training')).breakBefore") == "page"
    assert page.evaluate("document.querySelector('.tools').checkVisibility()") is False
    assert page.evaluate(is_open) is True
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(is_open) is False
    until(page, f"{color} === 'rgb(61, 143, 230)'")


def test_two_recipes_stand_side_by_side_and_interpolations_replace_samples(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.check("[data-choose=pair]")
    page.select_option("[data-choose=left]", label="digits/G · seed 1 · EMA fixed")
    page.select_option("[data-choose=kind]", "interpolations")
    left = "(e) => e.getBoundingClientRect().x"
    in_order = f"all.filter((e) => e.checkVisibility()).sort((a, b) => ({left})(a) - ({left})(b))"
    shown = f"(all) => {in_order}.map((e) => e.querySelector('img').alt)"
    assert page.eval_on_selector_all("#samples .frame", shown) == [
        "Interpolations by digits/G · seed 1 · EMA fixed at epoch 60",
        "Interpolations by digits/E · seed 0 · EMA fixed at epoch 60",
    ]


def copied(page: Page | Frame, table: str, form: str) -> str:
    page.click(f"[aria-label^='Copy as {form}: {table}']")
    text = page.input_value("#copied textarea")
    page.click("#copied button:last-of-type")
    return text


def test_a_table_is_copied_for_a_paper(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    latex = copied(page, "Results on digits", "LaTeX")
    assert "\\begin{tabular}{lrr" in latex
    for part in (
        "\\toprule",
        "\\midrule",
        "\\bottomrule",
        "\\multicolumn{2}{c}{FD (digits features)}",
        "\\cmidrule(lr){2-3}",
        "digits/C (EMA fixed) & ",
    ):
        assert part in latex
    assert [line for line in latex.splitlines() if line.lstrip().startswith("%")] == ["% needs \\usepackage{booktabs}"]
    assert "n = 2000 $\\cdot$ mean of 2 draws" in latex[: latex.index("\\toprule")]  # conditions stand in the caption
    rows = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert {line.count(" & ") for line in rows[1:]} == {rows[1].count(" & ")}
    markdown = [line for line in copied(page, "Results on digits", "Markdown").splitlines() if line.startswith("|")]
    assert "FD (digits features): best of 3" in markdown[0]
    assert {line.replace("\\|", "").count("|") for line in markdown} == {markdown[0].count("|")}
    assert len(markdown) == 2 + page.locator("#results table").first.locator("tbody tr:visible").count()


def test_columns_can_be_left_out_of_a_copy_and_open_seeds_are_in_it(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.click("[aria-label^='Copy as Markdown: Results on digits']")
    assert page.inner_text("#copied output").startswith(("Copied.", "The browser keeps"))
    page.get_by_label("FD (digits features): best of 3").uncheck()
    assert "FD (digits features): best of 3" not in page.input_value("#copied textarea")
    assert "FD (digits features): epoch 60" in page.input_value("#copied textarea")
    page.click("#copied button:last-of-type")
    page.click("[aria-label='Seeds of digits/C, EMA fixed']")
    assert "| seed 1 |" in copied(page, "Results on digits", "Markdown")


def test_a_verdict_leads_to_the_table_behind_it(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    link = page.locator(".verdict a").last
    target = page.locator(str(link.get_attribute("href")))
    assert not target.is_visible()
    link.click()
    assert target.is_visible()


def test_what_latex_and_markdown_would_misread_is_escaped(show: Callable[..., Page], html: str) -> None:
    page = show(html)
    page.eval_on_selector("#results tbody th", "e => { e.textContent = 'a_b & 5 % $x^2 #1 {y} ~ \\\\z |'; }")
    assert "a\\_b \\& 5 \\% \\$x\\textasciicircum{}2 \\#1 \\{y\\} \\textasciitilde{} \\textbackslash{}z |" in copied(
        page, "Results", "LaTeX"
    )
    assert "a\\_b & 5 % $x^2 #1 {y} ~ \\\\z \\|" in copied(page, "Results", "Markdown")


def test_it_works_in_a_frame_that_may_do_nothing_but_run_scripts(show: Callable[..., Page], html: str) -> None:
    outside = show("<!doctype html><title>Kubeflow</title><body></body>", file="outside.html", width=1200)
    outside.evaluate(
        "(html) => { const frame = document.createElement('iframe'); frame.setAttribute('sandbox', 'allow-scripts'); frame.srcdoc = html;"
        " frame.style = 'width: 1100px; height: 800px'; document.body.append(frame); }",
        html,
    )
    frame = outside.query_selector("iframe").content_frame()  # type: ignore[union-attr]
    assert frame
    until(frame, DRAWN)
    frame.focus("#samples input[type=range]")
    outside.keyboard.press("ArrowLeft")
    assert frame.inner_text("#samples output") == "40"
    frame.evaluate("document.execCommand = () => false")  # as where copying is refused
    frame.click("[aria-label^='Copy as LaTeX: Results']")
    assert frame.evaluate("document.querySelector('dialog').open && getSelection().toString().includes('toprule')")
    assert "press Ctrl+C" in frame.inner_text("#copied output")
    outside.keyboard.press("Escape")
    assert not frame.evaluate("document.querySelector('dialog').open")


@pytest.fixture(scope="module")
def running(full: Fake) -> str:
    return render(full.report(RunInfo(running=True)))


def test_while_the_run_goes_on_it_loads_itself_again_as_the_reader_left_it(
    show: Callable[..., Page], running: str, html: str, tmp_path: Path
) -> None:
    page = show(running, clock=True)
    page.evaluate("window.before = true")
    page.focus("#samples input[type=range]")
    page.keyboard.press("ArrowLeft")
    page.check("#metric-0 [data-log=y]")
    page.evaluate("scrollTo({top: 1500, behavior: 'instant'})")
    page.clock.run_for(31_000)
    until(page, "!window.before && document.readyState === 'complete'")
    assert page.inner_text("#samples output") == "40"
    assert page.is_checked("#metric-0 [data-log=y]")
    assert page.evaluate("document.activeElement.dataset.log === 'y'")
    assert abs(page.evaluate("scrollY") - 1500) < 50
    (tmp_path / "report.html").write_text(html)
    page.clock.run_for(31_000)
    page.wait_for_selector("#notes")
    page.evaluate("window.before = true")
    page.clock.run_for(120_000)
    assert page.evaluate("window.before")  # the run has ended


def test_refreshing_can_be_paused_and_ends_where_no_news_come(show: Callable[..., Page], running: str) -> None:
    page = show(running, clock=True)
    page.evaluate("window.before = true")
    page.click("#running button")
    page.clock.run_for(120_000)
    assert page.evaluate("window.before")
    assert page.get_attribute("#running button", "aria-pressed") == "true"
    page.clock.fast_forward(16 * 60_000)
    page.click("#running button")
    assert "No news for a quarter of an hour" in page.inner_text("#running")
    page.clock.run_for(120_000)
    assert page.evaluate("window.before")


def test_in_a_frame_it_never_loads_itself_again(show: Callable[..., Page], running: str) -> None:
    outside = show("<!doctype html><body></body>", file="outside.html", clock=True)
    outside.evaluate(
        "(html) => { const frame = document.createElement('iframe'); frame.setAttribute('sandbox', 'allow-scripts'); frame.srcdoc = html;"
        " document.body.append(frame); }",
        running,
    )
    frame = outside.query_selector("iframe").content_frame()  # type: ignore[union-attr]
    assert frame
    frame.wait_for_selector("#running button", state="hidden")
    frame.evaluate("window.before = true")
    outside.clock.run_for(120_000)
    assert frame.evaluate("window.before")
