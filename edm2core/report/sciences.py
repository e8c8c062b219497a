"""By which science a report's results were made, and which trainings went on under another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edm2core.provenance.made_by import made_by
from edm2core.provenance.science import UNKNOWN, brief, same, science_of
from edm2core.report.collect import Report, Result


@dataclass
class Made:
    """Results of one stage that one science made, by one version of the code."""

    stage: str
    science: str  # "unknown" where it was not recorded
    code: str
    whose: str  # this code's, other or unknown
    results: int = 0
    diffs: tuple[str, ...] = ()  # digests of what a changed working tree differed in


def sciences(report: Report) -> list[Made]:
    """Who made the results, stage by stage in the plan's order."""
    found: dict[tuple[str, str, str], Made] = {}
    for result in report.results.values():
        manifest = result.manifest
        if manifest is None:
            continue
        code = str(result.provenance.get("code_version") or UNKNOWN)
        whose = "other" if manifest.science else UNKNOWN
        if manifest.science and same(manifest.science, science_of(manifest.stage)):
            whose = "this code's"
        one = found.setdefault((manifest.stage, manifest.science, code), Made(manifest.stage, brief(manifest.science), code, whose))
        one.results += 1
        if diff := result.provenance.get("diff"):
            one.diffs = tuple(dict.fromkeys((*one.diffs, str(diff))))
    return list(found.values())


def said_of(report: Report) -> list[str]:
    """What is to be said of results that this code's science alone did not make, a sentence each."""
    return made_by(result.manifest for result in report.results.values() if result.manifest).lines


def several(report: Report) -> dict[str, str]:
    """The results that several sciences made one after the other, by their titles, with which and from where on."""
    return {result.task.title: _parts(result) for result in report.results.values() if result.metadata.get("sciences")}


def science_facts(report: Report) -> dict[str, Any]:
    """The same for results.json."""
    made = [{**vars(one), "diffs": list(one.diffs)} for one in sciences(report)]
    return {"made": made, "several": several(report)}


def _parts(result: Result) -> str:
    parts: list[Mapping[str, Any]] = result.metadata["sciences"]
    named = [f"{brief(str(part['science']))}{_from(part)}" for part in parts]
    return ", then ".join(named)


def _from(part: Mapping[str, Any]) -> str:
    return f" from step {part['from_step']}" if part.get("from_step") is not None else ""
