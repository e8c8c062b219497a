"""Kills an experiment at random moments until it is done, and compares its results with an undisturbed run's.

    python tests/kill_experiment.py experiments/demo.yaml --kills 20

SIGKILL, SIGTERM or SIGINT goes to the command, to its process group, or to one of the processes that work for it.
Exit code 0: the results are equal. The seed is printed, so that a failure can be repeated.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from waiting import wait_until


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--within", type=float, help="seconds until a kill, at most (default: the undisturbed run's time over the kills, twice)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--reference", type=Path, help="results.json of an undisturbed run; without it one is made first")
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        reference = arguments.reference or undisturbed(arguments.experiment, Path(folder) / "undisturbed")
        within = arguments.within or 2 * (time.monotonic() - begun) / arguments.kills
        expected = json.loads(reference.read_text())["results"]
        store = Path(folder) / "disturbed"
        for number in range(1, arguments.kills + 1):
            print(f"kill {number}: {kill_once(arguments.experiment, store, chance, within)}", flush=True)
        process = start(arguments.experiment, store)
        if process.wait() != 0:
            print(f"finishing it ended with exit code {process.returncode}")
            return 1
        found = json.loads(results(store).read_text())["results"]
    same = found == expected
    print(f"{len(found)} results, {'equal to' if same else 'DIFFERENT from'} the undisturbed run's")
    for one, other in zip(expected, found, strict=False):
        if one != other:
            print(f"  expected {one}\n  found    {other}")
    return 0 if same else 1


def start(experiment: Path, store: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pipelines.cli.main", "run", str(experiment), "--store", str(store)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def undisturbed(experiment: Path, store: Path) -> Path:
    if start(experiment, store).wait() != 0:
        sys.exit("the undisturbed run failed")
    return results(store)


def results(store: Path) -> Path:
    return next(store.glob("runs/*/results.json"))


def kill_once(experiment: Path, store: Path, chance: random.Random, within: float) -> str:
    """Start it, kill something at a random moment, and wait until all of it has ended, or it is done."""
    process = start(experiment, store)
    moment = chance.uniform(0, within)
    try:
        return f"ended by itself with exit code {process.wait(moment)}"
    except subprocess.TimeoutExpired:
        pass
    number = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    target = chance.choice(["command", "group", "child"])
    children = descendants(process.pid)
    if target == "child" and children:
        victim = chance.choice(sorted(children))
        send(victim, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, within / 4))  # it goes on; then all of it is killed
        os.killpg(process.pid, signal.SIGKILL)
    elif target == "group":
        os.killpg(process.pid, number)
    else:
        send(process.pid, number)
    process.wait(120)
    wait_until_gone(children)
    return f"{number.name} to the {target} after {moment:.1f} s"


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields: list[Any] = entry.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(entry.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def wait_until_gone(pids: set[int]) -> None:
    """Children die with the command; raises AssertionError if they do not."""
    wait_until(lambda: not any(map(alive, pids)), 30, failing=lambda: f"still running: {[pid for pid in pids if alive(pid)]}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
