"""What was measured, kept row by row: results.json for programs, RESULTS.md for people."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import commit, load, machine
from bench.rows import Options, Row
from bench.table import render


def measured(row: Row, options: Options) -> dict[str, Any]:
    """Measure a row: its result, and on what it was measured."""
    before = load()
    result = row.measure(options).to_json()
    return {"what": row.describe(options), "result": result, **_circumstances(before)}


def failed(row: Row, options: Options, why: str) -> dict[str, Any]:
    """The entry of a row that could not be measured."""
    return {"what": row.describe(options), "failed": why, **_circumstances(load())}


def _circumstances(load_before: float) -> dict[str, Any]:
    return {"load": f"{max(load_before, load()):.1f}", "machine": machine(), "commit": commit()}


def recorded(results: Path) -> dict[str, Any]:
    """What was measured so far, by the name of its row."""
    found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    return found


def keep(results: Path, table: Path, rows: Sequence[Row], row: Row, entry: dict[str, Any]) -> None:
    """Keep a row as soon as it is measured. Others stay as they were, and a kill leaves either file whole."""
    entries = recorded(results)
    entries = {each.name: entries[each.name] for each in rows if each.name in entries} | {row.name: entry}
    _replace(results, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    _replace(table, render(rows, entries))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
