"""The report's files."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from edm2core.report.collect import Report, Result
from edm2core.report.frontier import compared_apart
from edm2core.report.frontier_words import FRONTIER, answers_of, point_facts
from edm2core.report.frontier_words import facts as frontier_facts
from edm2core.report.guidance import facts as guidance_facts
from edm2core.report.guidance import guidance_sweeps
from edm2core.report.html import render
from edm2core.report.overview import FILE, as_overview
from edm2core.report.results import Row, rows, run_facts
from edm2core.report.seeds import DIFFERENCE, SPREAD, difference_facts, differences, spread_facts, spreads
from edm2core.report.verdict import facts as verdict_facts
from edm2core.report.verdict import verdicts
from edm2core.words import printable

ROW = (*(field.name for field in fields(Row)), "result")


def write(report: Report, folder: Path) -> None:
    """Write results.json, overview.json, tables as CSV and report.html."""
    write_files(folder, {"results.json": as_json(report), FILE: as_overview(report), **as_csv(report), "report.html": render(report)})


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Write texts by their file's name; each replaces its earlier version whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def as_json(report: Report) -> str:
    """`results` and all but `run` are the same for the same results, whoever made them; `run` says when, where, by which code."""
    found = rows(report)
    over_seeds = spreads(found)
    tested = differences(over_seeds)
    facts = {
        "verdicts": [verdict_facts(verdict) for verdict in verdicts(over_seeds, tested, compared_apart(report))],
        "frontiers": [frontier_facts(answer) for answer in answers_of(report)],
        "guidance": [guidance_facts(sweep) for sweep in guidance_sweeps(report, found)],
        "results": _rows(found),
        "rechecks": _rows(rows(report, rechecks=True)),
        "seeds": [spread_facts(spread) for spread in over_seeds],
        "differences": [difference_facts(difference) for difference in tested],
        "absent": dict(report.run.absent),
        "diagnostics": [result.metadata for result in report.of_stage("diagnostics") if result.manifest],
        "run": run_facts(report),
    }
    return json.dumps(printable(facts), indent=1, allow_nan=False) + "\n"


def as_csv(report: Report) -> dict[str, str]:
    """File name → its table, with a header; what is null in JSON is empty here."""
    found = rows(report)
    over_seeds = spreads(found)
    return {
        "results.csv": table(ROW, _rows(found)),
        "rechecks.csv": table(ROW, _rows(rows(report, rechecks=True))),
        "seeds.csv": table(SPREAD, map(spread_facts, over_seeds)),
        "frontiers.csv": table(FRONTIER, (line for answer in answers_of(report) for line in point_facts(answer.frontier))),
        "differences.csv": table(DIFFERENCE, map(difference_facts, differences(over_seeds))),
    }


def _rows(found: Mapping[Row, Result]) -> list[dict[str, Any]]:
    """The rows, each with the address of the result that it comes from: its manifest is results/<address>/manifest.json."""
    return [{**asdict(row), "result": str(result.task.ref)} for row, result in found.items()]


def table(columns: Iterable[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(printable, lines))
    return text.getvalue()
