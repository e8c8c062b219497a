"""How often a job's pods have begun again, and why."""

from __future__ import annotations

from typing import Any

from components.launcher.diagnose import Death, deaths, evictions, has_begun, out_of_reach
from components.launcher.job_kinds import JobKind

Object = dict[str, Any]


class Restarts:
    """Restarts of one job. An incident that takes several pods counts once."""

    def __init__(self, kind: JobKind) -> None:
        self.number = 0
        self.lost = False  # the last one was for no fault of the job's that is known
        self._kind = kind
        self._uids: dict[str, set[str]] = {}  # a pod's index → uids it has had since counting last began anew
        self._before = 0  # restarts until then
        self._deaths: dict[str, Death] = {}  # a pod's uid → how it ended
        self._told: set[str] = set()  # uids of the pods whose death was a reason before

    @property
    def uids(self) -> set[str]:
        """The uids of all pods that have begun since counting last began anew."""
        return set().union(*self._uids.values())

    def count(self, pods: list[Object], events: list[Object], suspended: bool) -> str:
        """Count what is new, by the job's pods and events about them; if pods began again just now, how the last ones died."""
        before = self.number
        if any(out_of_reach(pod) for pod in pods):  # the others begin again in vain until it is back
            self._begin_anew()
        for pod in pods:
            if has_begun(pod):
                self._uids.setdefault(self._kind.pod_index(pod["metadata"]["name"]), set()).add(pod["metadata"]["uid"])
        self.number = self._before + max((len(uids) - 1 for uids in self._uids.values()), default=0)
        if suspended:
            self._begin_anew()
        self._deaths.update({death.uid: death for death in (*deaths(pods), *evictions(events)) if death.code})
        if self.number == before:
            return ""
        new = [death for uid, death in self._deaths.items() if uid not in self._told]
        self._told |= set(self._deaths)
        self.lost = not any(death.own_fault for death in new)
        causes = [death for death in new if death.first_cause]
        return next((death.words for death in causes or new), "pods were lost")

    def _begin_anew(self) -> None:
        self._uids, self._before = {}, self.number
