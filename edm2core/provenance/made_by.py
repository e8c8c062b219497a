"""Which science made results, compared with the science of this process."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from edm2core.plan.manifest import Manifest
from edm2core.provenance.science import UNKNOWN, canonical, same, science_of

NAMED = 3  # most trainings, or versions of the code, that a line names


@dataclass(frozen=True)
class MadeBy:
    """Results, with those among them that were not made by this code's science alone."""

    results: int
    others: dict[str, list[Manifest]]  # made by other science, by the version of the code that made them
    unknown: list[Manifest]  # made before science was recorded
    several: list[Manifest]  # trainings that went on under other science, and mixtures of averages of several sciences

    @property
    def lines(self) -> list[str]:
        """A sentence for each of these kinds that there is."""
        lines = []
        if self.others:
            others = [manifest for made in self.others.values() for manifest in made]
            stages = ", ".join(sorted({manifest.stage for manifest in others}))
            what = "made by other science than that of this code"
            lines.append(f"{self._count(others)} {what}: what computes {stages} differs in {_first(sorted(self.others))}.")
        if self.unknown:
            versions = sorted({_version(manifest) for manifest in self.unknown})
            lines.append(f"{self._count(self.unknown)} made by unknown science, before that was recorded ({_first(versions)}).")
        if self.several:
            titles = _first([manifest.title for manifest in self.several])
            lines.append(f"{self._count(self.several)} made by several sciences one after the other: {titles}.")
        return lines

    def _count(self, some: list[Manifest]) -> str:
        return f"{len(some)} of {self.results} result{'s' * (self.results != 1)} {'was' if len(some) == 1 else 'were'}"


def made_by(manifests: Iterable[Manifest]) -> MadeBy:
    """Sort results by the science that made them. A science that `science_equal.yaml` calls equal to this code's counts as this code's."""
    manifests = list(manifests)
    others: dict[str, list[Manifest]] = defaultdict(list)
    unknown = [manifest for manifest in manifests if not manifest.science]
    for manifest in manifests:
        if manifest.science and not same(manifest.science, science_of(manifest.stage)):
            others[_version(manifest)].append(manifest)
    return MadeBy(len(manifests), dict(others), unknown, [manifest for manifest in manifests if manifest.metadata.get("sciences")])


def several_of(manifests: Iterable[Manifest]) -> list[dict[str, str]]:
    """The sciences that made these results, in the results' order; an empty list if it was one alone, as is usual."""
    sciences: dict[str, str] = {}
    for manifest in manifests:
        for part in manifest.metadata.get("sciences") or [{"science": manifest.science or UNKNOWN}]:
            sciences.setdefault(canonical(str(part["science"])), str(part["science"]))
    return [{"science": science} for science in sciences.values()] if len(sciences) > 1 else []


def _first(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _version(manifest: Manifest) -> str:
    return str(manifest.provenance.get("code_version") or "a version that was not recorded")
