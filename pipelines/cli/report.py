"""edm2 report"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import BinaryIO

import click

from components.report.write import recorded_outcomes, write_report
from edm2core.errors import InputError
from edm2core.report import RunInfo, collect
from edm2core.report.compare import Side, compare
from edm2core.report.comparison_page import figures as comparison_figures
from edm2core.report.comparison_page import write
from edm2core.report.conclusions import conclusions
from edm2core.report.drawings import drawings
from edm2core.report.figures import Figure
from edm2core.report.paper import write_tables
from edm2core.store.runs import NOTES, Run, find_run, load_plan
from edm2core.store.summary import list_one
from pipelines.cli import completion
from pipelines.cli.options import FOLDER, store_option


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=completion.runs)
@store_option
@click.option("--notes", type=click.File("rb"), help="A Markdown file that becomes the run's notes; - reads them.")
@click.option("--figures", type=FOLDER, help="Folder for every figure as SVG, PDF and CSV, and figures.tex with their captions.")
@click.option("--tables", type=FOLDER, help="Folder for the tables of the report as LaTeX (booktabs) and Markdown, for a paper.")
@click.option("--metric", "metrics", multiple=True, help="A metric to have in --tables, by its name in results.json (default: all).")
@click.option("--out", type=FOLDER, help="Folder for a comparison (default: ./comparison).")
def command(
    runs: tuple[str, ...],
    store: str,
    notes: BinaryIO | None,
    figures: Path | None,
    tables: Path | None,
    metrics: tuple[str, ...],
    out: Path | None,
) -> None:
    """Write the report of RUN again, from what is in the store now; or compare several runs, also of different stores.

    RUN is a run's id in --store, or STORE/runs/ID, as `edm2 run` prints it. The page shows the run's notes: the file runs/RUN/notes.md in
    the store, which only --notes and your editor change. While the run goes on, the page refreshes. A comparison shows how the
    experiments differ, their best and last values, and their curves over each other. --figures writes the page's figures as files too:
    an SVG has the title and the caption in it, a PDF is the drawing alone, for a paper that includes figures.tex.
    """
    records = [find_run(run, store) for run in runs]
    if len(records) > 1:
        if notes:
            raise InputError("Notes belong to one run, and several are compared.", where="--notes")
        if tables:
            raise InputError("Tables are of one run, and several are compared.", where="--tables", do_next="Name one run.")
        _compare(records, out or Path("comparison"), figures)
        return
    if out:
        raise InputError("The report of one run goes into the run's folder.", where="--out", do_next="Name several runs to compare them.")
    if metrics and not tables:
        raise InputError("--metric chooses columns of --tables.", where="--metric", do_next="Say --tables FOLDER too.")
    (record,) = records
    name, tasks = load_plan(record.store, record.id)
    if notes:
        record.store.write(f"{record.folder}/{NOTES}", notes.read())
    command = shlex.join(["edm2", *sys.argv[1:]])
    if running := _goes_on(record):
        report = write_report(record, name, tasks, recorded_outcomes(record, running=True), command, running=True)
    if not running or not _goes_on(record):  # the run ended meanwhile, and our page has replaced its last one
        report = write_report(record, name, tasks, recorded_outcomes(record), command)
    if figures:
        _draw(drawings(report).all, figures)
    for line in conclusions(report):
        click.echo(line)
    if tables:
        click.echo(f"tables: {tables} ({len(write_tables(report, tables, metrics))} files)")
    click.echo(f"report: {record.store.uri}/{record.folder}/report.html")


def _goes_on(run: Run) -> bool:
    """Whether somebody works on the run, and so will write its report again."""
    listed = list_one(run.store, run.id)
    return listed is not None and listed.state == "running"


def _draw(figures: Sequence[Figure], folder: Path) -> None:
    from edm2core.report.figures.files import write_figures  # which needs the library that draws

    write_figures(figures, folder)
    click.echo(f"figures: {folder} ({len(figures)} figures, as SVG, PDF and CSV; LaTeX includes them with figures.tex)")


def _compare(records: Sequence[Run], out: Path, figures: Path | None) -> None:
    addresses = [f"{record.store.uri}/{record.folder}" for record in records]
    twice = next((address for address in addresses if addresses.count(address) > 1), None)
    if twice:
        raise InputError("A run cannot be compared with itself.", where=twice, do_next="Name every run once.")
    if len(records) > len(ascii_uppercase):
        raise InputError(f"More than {len(ascii_uppercase)} runs are too many for one page.", where="RUN")
    sides = []
    for mark, record, address in zip(ascii_uppercase, records, addresses, strict=False):
        report = collect(*load_plan(record.store, record.id), record.store, RunInfo(recorded_outcomes(record)))
        sides.append(Side(mark, address, report))
        undone = len(report.undone)
        state = f"{undone} of {len(report.results)} tasks have no result" if undone else "done"
        click.echo(f"{mark}  {address}  ({state})")
    comparison = compare(sides)
    paths = write(comparison, out)
    if figures:
        _draw(comparison_figures(comparison), figures)
    click.echo(f"comparison: {next(path for path in paths if path.suffix == '.html')}")
