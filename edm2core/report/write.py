"""The report's three files."""

from __future__ import annotations

import os
from pathlib import Path

from edm2core.report.collect import Report
from edm2core.report.html import render
from edm2core.report.results import as_csv, as_json


def write(report: Report, folder: Path) -> None:
    """Write results.json, results.csv and report.html; each replaces its earlier version whole, or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("results.json", as_json(report)), ("results.csv", as_csv(report)), ("report.html", render(report))):
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)
