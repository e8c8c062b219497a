"""Who follows a job. Each follower says so by an annotation of the job, which it renews.

So whoever is told to stop knows, without asking anybody, whether its first request has to suspend the job.
"""

from __future__ import annotations

import calendar
import time
from typing import Any

Object = dict[str, Any]
FOLLOWER = "follower.edm2/"
SILENT_S = 45.0  # without a sign of life, a follower is taken for gone
FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def signs_of_life(job: Object) -> dict[str, str]:
    """When each follower of a job that has not signed out last said that it is there, by its name."""
    return {name: sign for name, sign in job["metadata"].get("annotations", {}).items() if name.startswith(FOLLOWER)}


def now() -> str:
    """A sign of life."""
    return time.strftime(FORMAT, time.gmtime())


class OtherFollowers:
    """Other followers of a job. What counts is when this process saw their signs change, since their clocks may differ."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, float]] = {}  # name → its last sign, and when that came by this process's clock

    def see(self, signs: dict[str, str]) -> None:
        seen = {}
        for name, sign in signs.items():
            known, when = self._seen.get(name, ("", 0.0))
            if known != sign:
                when = time.monotonic() - (0.0 if known else _age_s(sign))
            seen[name] = sign, when
        self._seen = seen

    def any_alive(self) -> bool:
        return any(time.monotonic() - when < SILENT_S for _, when in self._seen.values())

    def long_gone(self) -> list[str]:
        """Those whose annotation can be removed."""
        return [name for name, (_, when) in self._seen.items() if time.monotonic() - when > 4 * SILENT_S]


def _age_s(sign: str) -> float:
    """Seconds since that time, as far as clocks agree."""
    try:
        return max(0.0, time.time() - calendar.timegm(time.strptime(sign, FORMAT)))
    except ValueError:
        return 0.0
