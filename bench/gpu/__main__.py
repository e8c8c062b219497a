"""`python -m bench.gpu`: a session of measurements on a GPU, the most important first, and what to try next.

Each row is kept as soon as it is measured, in bench/results.json and bench/RESULTS.md. A session that is cut loses the row under way. The
next one goes on: what was measured on this card at this commit is not measured again.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from bench.__main__ import RESULTS, TABLE
from bench.__main__ import ROWS as ALL
from bench.gpu.advice import advice
from bench.gpu.rows import ROWS
from bench.machine import commit, machine
from bench.record import failed, keep, measured, recorded
from bench.rows import Options, Row

REPEATS = 2
PATIENCE, SLACK_S = 3, 60.0  # a row may take so many times its expected seconds, and so many more


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help="rows to measure, also again, or what their names begin with; none: every row not measured yet"
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="begin no row that is not expected to end within them (default: 8)")
    parser.add_argument("--list", action="store_true", help="print the rows in their order and measure nothing")
    parser.add_argument(
        "--rehearse", metavar="FOLDER", type=Path, help="run the same code on the CPU at the smallest size; its results go there"
    )
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{row.seconds:5.0f} s  {row.name}" for row in ROWS))
        return
    if not (arguments.rehearse or torch.cuda.is_available()):
        sys.exit("torch finds no CUDA device here. --rehearse FOLDER runs the same code on the CPU, at the smallest size.")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    results, table = (arguments.rehearse / RESULTS.name, arguments.rehearse / TABLE.name) if arguments.rehearse else (RESULTS, TABLE)
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = chosen(arguments.names) if arguments.names else _left(ROWS, results)
    with tempfile.TemporaryDirectory(prefix="edm2-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        options = Options(1 if arguments.rehearse else REPEATS, rehearsal=bool(arguments.rehearse))
        postponed = session(rows, options, arguments.minutes, results, table, ALL)
    print("\n".join(summary(results, postponed)))


def chosen(names: Sequence[str]) -> list[Row]:
    """The rows of these names; a name that no row has means all whose names begin so."""
    known = {row.name for row in ROWS}
    begin = tuple(name for name in names if name not in known)
    return [row for row in ROWS if row.name in names or row.name.startswith(begin)]


def session(rows: Sequence[Row], options: Options, minutes: float, results: Path, table: Path, listed: Sequence[Row]) -> list[Row]:
    """Measure rows in their order while they are expected to end in time; those left. A row that fails is kept as failed."""
    ends, postponed = time.monotonic() + 60 * minutes, []
    for row in rows:
        if row.seconds > ends - time.monotonic():
            postponed.append(row)
            continue
        begun = time.monotonic()
        try:
            with _limited(PATIENCE * row.seconds + SLACK_S):
                entry = measured(row, options)
            words = entry["result"]["reached"]
        except Exception as error:  # what one row meets, others need not
            entry = failed(row, options, f"{type(error).__name__}: {error}")
            words = f"FAILED {entry['failed']}"
        keep(results, table, listed, row, entry)
        print(f"{row.name}: {words} [{time.monotonic() - begun:.0f} s]", flush=True)
    return postponed


def summary(results: Path, postponed: Sequence[Row]) -> list[str]:
    """What to try next, and how to measure what is left."""
    entries = recorded(results)
    lines = ["", "What to try next:", *(f"- {words}" for words in advice(entries))]
    if postponed:
        seconds = sum(row.seconds for row in postponed)
        lines += ["", f"Not measured for want of time, about {seconds / 60:.0f} min: {', '.join(row.name for row in postponed)}."]
        lines += ["The same command goes on with them."]
    return lines


def _left(rows: Sequence[Row], results: Path) -> list[Row]:
    """The rows that have no measurement on this card at this commit."""
    entries, here, now = recorded(results), machine()["GPU"], commit()

    def done(row: Row) -> bool:
        entry = entries.get(row.name, {})
        return "result" in entry and entry["machine"]["GPU"] == here and entry["commit"] == now

    return [row for row in rows if not done(row)]


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the work after so many seconds."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
