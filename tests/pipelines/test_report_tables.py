"""edm2 report RUN --tables FOLDER --figures FOLDER: what a paper takes from a report, as files."""

from pathlib import Path

from click.testing import CliRunner

from edm2core.store.runs import Run, record
from pipelines.cli.report import command
from tests.edm2core.report.conftest import Fake


def test_tables_are_written_as_latex_and_markdown_and_the_verdict_is_said(tmp_path: Path) -> None:
    fake = Fake(tmp_path).make()
    record(Run("one", fake.store), fake.name, fake.text, fake.tasks, {})
    run, folder = f"{fake.store.root}/runs/one", tmp_path / "paper"
    done = CliRunner().invoke(command, [run, "--tables", str(folder), "--metric", "fd_digits"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in folder.iterdir()} == {"results-digits.tex", "results-digits.md"}
    assert "digits · FD (digits features): One seed: no claim." in done.output
    refused = CliRunner().invoke(command, [run, "--metric", "fd_digits"])
    assert refused.exception
    assert "--metric chooses columns of --tables" in str(refused.exception)


def test_every_figure_is_written_as_svg_pdf_and_numbers_with_its_caption(tmp_path: Path) -> None:
    fake = Fake(tmp_path).make()
    record(Run("one", fake.store), fake.name, fake.text, fake.tasks, {})
    folder = tmp_path / "figures"
    done = CliRunner().invoke(command, [f"{fake.store.root}/runs/one", "--figures", str(folder)])
    assert done.exit_code == 0, done.output
    assert (folder / "metric-0.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (folder / "metric-0.pdf").read_bytes().startswith(b"%PDF")
    assert "epoch" in (folder / "metric-0.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "\\includegraphics" in (folder / "figures.tex").read_text(encoding="utf-8")
