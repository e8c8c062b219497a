"""The report while its run goes on."""

import json
import subprocess
import threading
from pathlib import Path

from click.testing import CliRunner

from edm2core.errors import StoreError
from pipelines.cli.report import command
from pipelines.run.live_report import live_report
from tests.pipelines.conftest import TINY
from tests.quick_edm2 import quick_edm2


def test_it_is_written_at_once_after_news_and_no_more_when_the_run_ended() -> None:
    written = threading.Semaphore(0)
    with live_report(written.release, least_s=0.0, most_s=60.0) as news:
        assert written.acquire(timeout=10)
        assert not written.acquire(timeout=0.2)
        news()
        assert written.acquire(timeout=10)
    assert not written.acquire(timeout=0.2)


def test_news_that_come_while_a_report_is_written_are_one_report() -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def write() -> None:
        begun.release()
        assert go_on.acquire(timeout=10)

    with live_report(write, least_s=0.0, most_s=60.0) as news:
        assert begun.acquire(timeout=10)
        for _ in range(100):
            news()
        go_on.release()
        assert begun.acquire(timeout=10)
        go_on.release()
        assert not begun.acquire(timeout=0.2)


def test_news_soon_after_a_report_wait() -> None:
    written = threading.Semaphore(0)
    with live_report(written.release, least_s=60.0) as news:
        assert written.acquire(timeout=10)
        news()
        assert not written.acquire(timeout=0.2)


def test_without_news_it_is_written_all_the_same_so_that_readers_know_the_run_goes_on() -> None:
    written = threading.Semaphore(0)
    with live_report(written.release, least_s=0.0, most_s=0.05):
        for _ in range(3):
            assert written.acquire(timeout=10)


def test_a_report_that_cannot_be_written_stops_nothing() -> None:
    tried = threading.Semaphore(0)

    def fails() -> None:
        tried.release()
        raise StoreError("No space left.", where="/store", do_next="Make room.")

    with live_report(fails, least_s=0.0, most_s=0.05):
        assert tried.acquire(timeout=10)
        assert tried.acquire(timeout=10)


def test_a_page_is_there_while_the_run_goes_on_and_notes_outlast_it(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(TINY)
    run = quick_edm2("run", "e.yaml", "--store", "store")
    with subprocess.Popen(run, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        line = next(line for line in process.stdout if line.startswith("report, while it runs: "))
        page = Path(line.split(": ", 1)[1].strip())
        seen = ""
        for _ in process.stdout:
            if not seen and page.exists():
                seen = page.read_text()
                now = CliRunner().invoke(command, [page.parent.name, "--store", str(tmp_path / "store")])
                assert now.exit_code == 0, now.output
                asked = page.read_text()
                (page.parent / "notes.md").write_text("*Lower* is better.")
    assert process.returncode == 0
    assert 'id="running"' in seen
    assert 'id="running"' in asked
    ended = page.read_text()
    assert 'id="running"' not in ended
    assert "<em>Lower</em> is better." in ended

    (tmp_path / "notes.md").write_text("Written **again**.")
    again = CliRunner().invoke(command, [page.parent.name, "--store", str(tmp_path / "store"), "--notes", str(tmp_path / "notes.md")])
    assert again.exit_code == 0, again.output
    assert "<strong>again</strong>" in page.read_text()
    assert (page.parent / "notes.md").read_text() == "Written **again**."
    assert json.loads((page.parent / "results.json").read_text())["absent"] == {}
