"""`python -m bench [NAME…]`: measure all rows, or those whose name begins so, and write RESULTS.md."""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import choices, dag, evaluation, listing, network, probe, scaling, training
from bench.gpu import rows as gpu
from bench.record import keep, measured, recorded
from bench.rows import Options, Row
from bench.table import render

RESULTS, TABLE = Path(__file__).parent / "results.json", Path(__file__).parent / "RESULTS.md"
ROWS: list[Row] = [
    *network.ROWS,
    *training.ROWS,
    *scaling.ROWS,
    *evaluation.ROWS,
    *probe.ROWS,
    *dag.ROWS,
    *choices.ROWS,
    *listing.ROWS,
    *gpu.ROWS,
]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", help="rows to measure: all whose name begins so; none: every row")
    parser.add_argument("--list", action="store_true", help="print the rows' names and measure nothing")
    parser.add_argument("--table", action="store_true", help="write RESULTS.md from what was measured before, and measure nothing")
    parser.add_argument("--repeats", type=int, default=Options.repeats)
    parser.add_argument("--batch", type=int, default=Options.batch)
    parser.add_argument("--threads", type=int, default=Options().threads)
    arguments = parser.parse_args()
    wanted = [row for row in ROWS if not arguments.names or row.name.startswith(tuple(arguments.names))]
    if arguments.list:
        print("\n".join(row.name for row in wanted))
        return
    if arguments.table:
        TABLE.write_text(render(ROWS, recorded(RESULTS)), encoding="utf-8")
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that it leaves as little behind as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="edm2-bench-", ignore_cleanup_errors=True) as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # of the processes that are timed too
        try:
            _measure(wanted, Options(arguments.repeats, arguments.batch, arguments.threads))
        except KeyboardInterrupt:
            sys.exit(130)


def _measure(rows: Sequence[Row], options: Options) -> None:
    for row in rows:
        if row.needs == "cuda" and not torch.cuda.is_available():
            continue
        begun = time.monotonic()
        entry = measured(row, options)
        keep(RESULTS, TABLE, ROWS, row, entry)
        print(f"{row.name}: {entry['result']['reached']} (to reach: {row.target}) in {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
