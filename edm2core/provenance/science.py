"""Which science makes a stage's numbers: a digest of the code that its results can depend on, taken without importing any of it.

A stage's science is its own module and the modules of `SCIENCE` that its imports lead to. They are digested as syntax trees, without what
changes no number: comments, docstrings, formatting, annotations, import statements, words of errors and events, and where a module lies.
A module that loads from a table of the registry leads to the code that the table names.
An imported name counts as what it means: `np.exp`, `numpy.exp` and `exp` from `numpy` are the same, `exp` from `math` is another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from edm2core.plan.versions import EVERYWHERE

PACKAGE = Path(__file__).parents[1]
SCIENCE = frozenset({"data", "diffusion", "keyed_random", "metrics", "probe", "snapshots"})
"""The modules and packages of edm2core that make numbers: networks, diffusion, training, sampling, data, metrics, probe."""
NOT_FOLLOWED = frozenset({"config", "plan", "report", "stages", "worker"})
"""What leads to all of the science and brings a stage none of it: settings are in keys, other stages' results are inputs."""
STAGES = {stage: stage for stage in EVERYWHERE} | {"snapshot": "train", "average": "train"}  # to the stage's own module
EQUAL = Path(__file__).parent / "science_equal.yaml"
UNKNOWN = "unknown"  # the science of what was made before it was recorded
LENGTH, SHORT = 20, 10  # hex digits, and those that a person is shown
ACCEPT = "`--accept-code` goes on all the same, with a mark in the curve, in the snapshots and in the report."


class Science(NamedTuple):
    """What makes a stage's results: a digest in hex digits, and the files of the package that it was taken from."""

    digest: str
    files: tuple[str, ...]


def science_of(stage: str) -> str:
    """The science that makes a stage's results in this process: 20 hex digits, or nothing where the package has no source to read.

    It is that of the source when this was first asked, which should be before what makes numbers is imported.
    """
    found = here().get(stage)
    return found.digest if found else ""


def brief(science: str) -> str:
    """A science as a person is shown it."""
    return science[:SHORT] or UNKNOWN


def sciences_of(curve: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Which sciences a training was by, each with the step from which on; nothing where it was by one, as is usual."""
    marks = [row for row in curve if "science" in row]
    if not marks:
        return []
    first = {"from_step": 0, "science": marks[0]["science_before"]}
    return [first, *({"from_step": row["step"], "science": row["science"]} for row in marks)]


def same(a: str, b: str) -> bool:
    """Whether two sciences give the same numbers: they are one, or `science_equal.yaml` says so."""
    return canonical(a) == canonical(b)


def canonical(science: str) -> str:
    """The first of the sciences that are known to give the same numbers as this one."""
    return equal().get(science, science)


@cache
def equal() -> dict[str, str]:
    """What `science_equal.yaml` says."""
    return read_equal(EQUAL.read_text(encoding="utf-8"))


def read_equal(text: str) -> dict[str, str]:
    """Sciences that golden and parity tests showed to give the same numbers as others, each to the first of them."""
    first: dict[str, str] = {}
    for change in yaml.safe_load(text) or []:
        for before, now in change["same"].items():
            one, other = first.get(before, before), first.get(now, now)
            first |= {science: one for science, known in first.items() if known == other} | {other: one}
    return {science: known for science, known in first.items() if science != known}


def sciences(package: Path = PACKAGE, science: Collection[str] = SCIENCE) -> dict[str, Science]:
    """The science of every stage, as the source of this or another copy of edm2core has it."""
    from edm2core.provenance.syntax import Package  # not needed where the source is known

    found = Package(package, science, NOT_FOLLOWED)
    modules = {stage: f"stages/{own}.py" for stage, own in STAGES.items()}
    return {stage: Science(found.digest(module)[:LENGTH], tuple(found.reached(module))) for stage, module in modules.items()}


@cache
def here() -> dict[str, Science]:
    """As `sciences`, of this process's package, kept between processes by the source's contents: parsing takes a third of a second."""
    files = sorted(PACKAGE.rglob("*.py"))
    if not files:
        return {}
    contents = hashlib.sha256()
    for path in files:
        contents.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    kept: Path | None = None
    with suppress(OSError, RuntimeError, ValueError, TypeError):  # no home, nothing kept, or not by this
        cached = os.environ.get("EDM2_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edm2"
        kept = Path(cached).expanduser() / "science" / f"{contents.hexdigest()}.json"
        values = json.loads(kept.read_text(encoding="utf-8"))
        if values.keys() == STAGES.keys():
            return {stage: Science(str(digest), tuple(map(str, files))) for stage, (digest, files) in values.items()}
    found = sciences()
    if kept:
        with suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_name(f".{kept.name}.{os.getpid()}")
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(kept)
    return found
