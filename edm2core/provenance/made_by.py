"""By which science results were made, held against this process's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from edm2core.plan.manifest import Manifest
from edm2core.provenance.origin import code_version
from edm2core.provenance.science import UNKNOWN, brief, canonical, same, science_of

NAMED = 3  # trainings, or versions of the code, that a line names at most


@dataclass(frozen=True)
class MadeBy:
    """Results, of which some were made by other science than this code's, some by one that was not recorded, and some by several."""

    results: int
    others: dict[str, list[Manifest]]  # by the version of the code that made them
    unknown: list[Manifest]
    several: list[Manifest]  # a training that went on under other science, and what was mixed from averages of several

    @property
    def lines(self) -> list[str]:
        """What is to be said of them, a sentence each; nothing where all are of this code's science."""
        return [line for line in (self._others(), self._unknown(), self._several()) if line]

    def _others(self) -> str:
        count = sum(map(len, self.others.values()))
        if not count:
            return ""
        makers = [f"{len(made)} by {version} ({_digests(made)})" for version, made in sorted(self.others.items())]
        listed = "; ".join(makers[:NAMED]) + (f"; and {len(makers) - NAMED} versions more" if len(makers) > NAMED else "")
        stages = dict.fromkeys(manifest.stage for made in self.others.values() for manifest in made)
        ours = ", ".join(f"{stage} {brief(science_of(stage))}" for stage in sorted(stages))  # versions of changed code may read the same
        return f"{_of(count, self.results)} made by other science than that of this code ({code_version()}: {ours}): {listed}."

    def _unknown(self) -> str:
        if not self.unknown:
            return ""
        versions = sorted({_version(manifest) for manifest in self.unknown})
        listed = ", ".join(versions[:NAMED]) + (f" and {len(versions) - NAMED} more" if len(versions) > NAMED else "")
        return f"{_of(len(self.unknown), self.results)} made by unknown science, before that was recorded ({listed})."

    def _several(self) -> str:
        if not self.several:
            return ""
        named = ", ".join(manifest.title for manifest in self.several[:NAMED])
        more = f" and {len(self.several) - NAMED} more" if len(self.several) > NAMED else ""
        return f"{_of(len(self.several), self.results)} made by several sciences one after the other: {named}{more}."


def made_by(manifests: Iterable[Manifest]) -> MadeBy:
    """Sort results by the science that made them. Those that `science_equal.yaml` calls equal to this code's are this code's."""
    manifests = list(manifests)
    others: dict[str, list[Manifest]] = defaultdict(list)
    unknown = [manifest for manifest in manifests if not manifest.science]
    for manifest in manifests:
        if manifest.science and not same(manifest.science, science_of(manifest.stage)):
            others[_version(manifest)].append(manifest)
    return MadeBy(len(manifests), dict(others), unknown, [manifest for manifest in manifests if manifest.metadata.get("sciences")])


def several_of(manifests: Iterable[Manifest]) -> list[dict[str, str]]:
    """The sciences by which these were made, in their order; nothing where it is one, as is usual."""
    found: dict[str, str] = {}
    for manifest in manifests:
        for part in manifest.metadata.get("sciences") or [{"science": manifest.science or UNKNOWN}]:
            found.setdefault(canonical(str(part["science"])), str(part["science"]))
    return [{"science": science} for science in found.values()] if len(found) > 1 else []


def _of(count: int, results: int) -> str:
    return f"{count} of {results} result{'s' * (results != 1)} {'was' if count == 1 else 'were'}"


def _version(manifest: Manifest) -> str:
    return str(manifest.provenance.get("code_version") or "a version that was not recorded")


def _digests(manifests: Iterable[Manifest]) -> str:
    """The sciences of each stage: snapshot 3fa9c2d1e0, sample 77ab01c2d3."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for manifest in manifests:
        found[manifest.stage][brief(manifest.science)] = None
    return ", ".join(f"{stage} {' and '.join(list(digests)[:NAMED])}" for stage, digests in found.items())
