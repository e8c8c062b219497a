"""The science of a stage: a digest of the code that its results can depend on, taken without importing that code.

It covers the stage's own module and the modules of `SCIENCE` that its imports lead to. They are digested as syntax trees. What changes no
number is left out: comments, docstrings, formatting, annotations, imports, words of errors and events, and the place of a module. An
imported name counts as what it means: `np.exp`, `numpy.exp` and `exp` from `numpy` are the same, and `exp` from `math` is another.
A module that loads from a table of the registry leads to the code that the table names.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from edm2core.paths import cached
from edm2core.plan import stages

PACKAGE = Path(__file__).parents[1]
SCIENCE = frozenset({"data", "diffusion", "keyed_random", "metrics", "probe", "snapshots"})
"""The modules and packages of edm2core that make numbers: networks, diffusion, training, sampling, data, metrics, probe."""
NOT_FOLLOWED = frozenset({"config", "own_code", "plan", "report", "stages", "store/own_code.py", "worker"})
"""Rooms and modules whose imports are not followed. They lead to all of the science, though a stage computes with none of it: settings are
in keys."""
STAGES = {stage.name: stage.file for stage in stages.STAGES.values()} | {"average": "train"}  # the module of each stage
EQUAL = Path(__file__).parent / "science_equal.yaml"
UNKNOWN = "unknown"  # the science of results that were made before it was recorded
LENGTH, SHORT = 20, 10  # hex digits of a science, and how many of them are shown
ACCEPT = "`--accept-code` goes on all the same, with a mark in the curve, in the snapshots and in the report."


class Science(NamedTuple):
    """The science of a stage: its digest in hex digits, and the files of the package that it was taken from."""

    digest: str
    files: tuple[str, ...]


def science_of(stage: str) -> str:
    """The science of a stage in this process: 20 hex digits, or an empty string where the package has no source to read.

    The first call reads the source. It should come before the code that makes numbers is imported.
    """
    code = here().get(stage)
    return code.digest if code else ""


def brief(science: str) -> str:
    """The short form of a science that a person is shown."""
    return science[:SHORT] or UNKNOWN


def sciences_of(curve: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The sciences of a training, each with its first step; an empty list if it was one alone, as is usual."""
    marks = [row for row in curve if "science" in row]
    if not marks:
        return []
    first = {"from_step": 0, "science": marks[0]["science_before"]}
    return [first, *({"from_step": row["step"], "science": row["science"]} for row in marks)]


def same(a: str, b: str) -> bool:
    """Whether two sciences give the same numbers: they are equal, or `science_equal.yaml` says so."""
    return canonical(a) == canonical(b)


def canonical(science: str) -> str:
    """The first of the sciences that are known to give the same numbers as this one."""
    return equal().get(science, science)


@cache
def equal() -> dict[str, str]:
    """The contents of `science_equal.yaml`, as `read_equal` returns them."""
    return read_equal(EQUAL.read_text(encoding="utf-8"))


def read_equal(text: str) -> dict[str, str]:
    """Sciences that tests have shown to give the same numbers; each is mapped to the first of those that do."""
    first: dict[str, str] = {}
    for change in yaml.safe_load(text) or []:
        for before, now in change["same"].items():
            earlier, later = first.get(before, before), first.get(now, now)
            first |= {science: earlier for science, equal in first.items() if equal == later} | {later: earlier}
    return {science: equal for science, equal in first.items() if science != equal}


def sciences(package: Path = PACKAGE, science: Collection[str] = SCIENCE) -> dict[str, Science]:
    """The science of every stage, from the source of this or another copy of edm2core."""
    from edm2core.provenance.syntax import Package  # not needed where the digests are cached

    code = Package(package, science, NOT_FOLLOWED)
    modules = {stage: f"stages/{own}.py" for stage, own in STAGES.items()}
    return {stage: Science(code.digest(module)[:LENGTH], tuple(code.reached(module))) for stage, module in modules.items()}


@cache
def here() -> dict[str, Science]:
    """As `sciences`, of this process's package. A cache on disk, by the source's contents, saves a third of a second."""
    files = sorted(PACKAGE.rglob("*.py"))
    if not files:
        return {}
    contents = hashlib.sha256()
    for path in files:
        contents.update(f"{path.relative_to(PACKAGE).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    known = json.loads(cached(f"science/{contents.hexdigest()}.json", lambda: json.dumps(sciences())))
    return {stage: Science(digest, tuple(files)) for stage, (digest, files) in known.items()}
