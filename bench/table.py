"""RESULTS.md from what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.rows import Options, Row

HEAD = """# Measured

Written by `make bench`. Each row times a plain path, as reference scripts do it, and the product's, in turn in one run, each in a process
of its own. The ratio is the median over repeats, in brackets the middle half. *Share* is the part of the machine's fastest float32 matrix
product (on a GPU: of the bf16 one) that plain and product reach, measured in the same run, operations by torch's counter. *CPU time* is the
same ratio in processor time, which other programs on the machine disturb less. *Load* is how many programs wanted a core, the benchmark
among them: where it is above the number of cores, shares are too low. Why things are so: [performance](../docs/explanation/performance.md).
"""
DEFAULTS = Options(threads=2)
COLUMNS = {"reached": "reached", "cpu": "CPU time", "plain": "plain", "product": "product", "share": "share of limit"}


def render(rows: Sequence[Row], recorded: Mapping[str, Any]) -> str:
    """The machines, and a table of all rows, those without a measurement included."""
    machines: list[Any] = []
    for entry in recorded.values():
        if entry["machine"] not in machines:
            machines.append(entry["machine"])
    lines = [HEAD]
    for number, machine in enumerate(machines, 1):
        lines += [f"**Machine {number}.** {'; '.join(f'{name}: {value}' for name, value in machine.items())}", ""]
    head = ["benchmark", "to reach", *COLUMNS.values(), "load", "on", "commit"]
    lines += [_line(head), _line(["---"] * len(head))]
    for row in rows:
        entry = recorded.get(row.name)
        if entry is None:
            lines.append(_line([row.describe(DEFAULTS), row.target, "not measured", *[""] * (len(head) - 3)]))
        elif "failed" in entry:
            words = f"failed: {entry['failed'].splitlines()[0]}"
            lines.append(
                _line([entry["what"], row.target, words, *[""] * 4, entry["load"], 1 + machines.index(entry["machine"]), entry["commit"]])
            )
        else:
            found = [entry["result"][name] for name in COLUMNS]
            lines.append(_line([entry["what"], row.target, *found, entry["load"], 1 + machines.index(entry["machine"]), entry["commit"]]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
