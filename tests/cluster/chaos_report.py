"""A chaos run as plain data: which fault comes when, and what each one cost. Nothing here touches a cluster."""

import os
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

KINDS = {
    "pod": "a pod is killed",
    "both": "both pods are killed",
    "launcher": "the launcher is killed, and another one begins 10 s later",
    "stop": "a process of the training is stopped by SIGSTOP",
    "store": "the store is away for 20 s",
    "drain": "a node is drained, and takes pods again after 10 s",
    "policies": "NetworkPolicies are turned on",
    "api": "the API server is away for 20 s",
}
FEWEST = 3  # pairs of rows from which a stretch's own pace is taken


class Fault(NamedTuple):
    """A fault that is to happen `at_s` seconds after training began. `pod` is the index of the pod that it concerns, if of one."""

    kind: str
    at_s: float
    pod: int


class Happened(NamedTuple):
    """A fault that happened, in seconds since 1970, and the load of this machine then (processes that run or want to)."""

    kind: str
    time: float
    load: float = 0.0


class Row(NamedTuple):
    """A step that training had reached, and when, in seconds since 1970."""

    time: float
    step: int


@dataclass(frozen=True)
class Loss:
    """What one fault cost. `kind` is empty for the stretch before the first fault."""

    kind: str
    time: float  # seconds since 1970
    lost_s: float
    bar_s: float | None
    load: float = 0.0  # of this machine when the fault happened

    @property
    def within(self) -> bool:
        return self.bar_s is None or self.lost_s <= self.bar_s


@dataclass(frozen=True)
class Account:
    """What a chaos run cost altogether."""

    wall_s: float
    losses: tuple[Loss, ...]
    pace_s: float  # seconds for a step of this training where nothing is wrong

    @property
    def goodput(self) -> float:
        """The training seconds of an undisturbed run, over the wall time."""
        return 1 - sum(loss.lost_s for loss in self.losses) / self.wall_s

    @property
    def bound(self) -> float:
        """The least goodput that the bars allow."""
        return 1 - sum(loss.bar_s or 0.0 for loss in self.losses) / self.wall_s

    def by_kind(self) -> dict[str, list[Loss]]:
        """The losses of each kind of fault that happened, in the order of KINDS."""
        return {kind: own for kind in KINDS if (own := [loss for loss in self.losses if loss.kind == kind])}


def bars(hang_s: float) -> dict[str, float]:
    """The most seconds that a fault of each kind may cost. `hang_s` is the profile's."""
    return {**dict.fromkeys(KINDS, 3.0), "pod": 15.0, "both": 25.0, "stop": hang_s + 20.0, "drain": 35.0}


def schedule(seed: int, kinds: Sequence[str], seconds: float, every_s: float) -> list[Fault]:
    """A fault in each `every_s` seconds, at a random moment of the first third, so that its cost can be seen before the next one.

    Each kind comes equally often, or once more than another. The same seed gives the same faults.
    """
    chance, left, faults = random.Random(seed), list[str](), list[Fault]()
    for number in range(int(seconds // every_s) if kinds else 0):
        left = left or chance.sample(kinds, len(kinds))
        faults.append(Fault(left.pop(), every_s * number + chance.uniform(0, every_s / 3), chance.randrange(2)))
    return faults


def account(rows: Sequence[Row], faults: Sequence[Happened], bar_s: Mapping[str, float], end: float) -> Account:
    """What each fault cost: the time from the last row before it to the last row before the next, less what its new steps take.

    Steps that are trained again are no new steps. A step takes the median of its stretch, so that other work of the machine counts as no
    loss. A fault in a standstill costs what comes after that; the standstill is the earlier fault's, also one that lasts until `end`
    (seconds since 1970). Raises ValueError if there are fewer than two rows with new steps.
    """
    new = _records(rows)
    if len(new) < 2:
        raise ValueError("The training made no progress, so nothing can be said of what faults cost.")
    whole = _pace(new, None)
    patience_s = 2 * max(statistics.median(after.time - before.time for before, after in pairwise(new)), 1.0)
    places, last, culprit = list[int](), len(new) - 1, 0
    for number, fault in enumerate(faults, 1):
        place = max(sum(row.time <= fault.time for row in new) - 1, 0)
        stands_still = fault.time - new[place].time > patience_s
        culprit = culprit if stands_still and place == last else number
        places.append(min(place + stands_still, last))
    rest = max(end - new[-1].time - patience_s, 0.0)
    stretches = zip([Happened("", new[0].time), *faults], pairwise([0, *places, last]), strict=True)
    losses = []
    for number, (fault, (first, until)) in enumerate(stretches):
        stretch = new[first : until + 1]
        took, steps = stretch[-1].time - stretch[0].time + rest * (number == culprit), stretch[-1].step - stretch[0].step
        losses.append(Loss(fault.kind, fault.time, took - steps * _pace(stretch, whole), bar_s.get(fault.kind), fault.load))
    return Account(new[-1].time + rest - new[0].time, tuple(losses), whole)


def _records(rows: Sequence[Row]) -> list[Row]:
    """The rows that went further than all before them, by time."""
    found: list[Row] = []
    for row in sorted(rows):
        if not found or row.step > found[-1].step:
            found.append(row)
    return found


def _pace(rows: Sequence[Row], otherwise: float | None) -> float:
    """The median of the seconds that a step took; `otherwise` if there are few rows."""
    paces = [(after.time - before.time) / (after.step - before.step) for before, after in pairwise(rows)]
    return statistics.median(paces) if otherwise is None or len(paces) >= FEWEST else otherwise


def as_json(found: Account, difference: float, **about: Any) -> dict[str, Any]:
    """The report for programs. `difference` is the largest one between the weights and those of an undisturbed training."""
    numbers = {"wall_s": found.wall_s, "goodput": found.goodput, "bound": found.bound, "seconds_per_step": found.pace_s}
    losses = [{**asdict(loss), "within": loss.within} for loss in found.losses]
    return {**about, **numbers, "difference": difference, "faults": losses}


def losses_in_words(found: Account, left_out: Mapping[str, str]) -> str:
    """The report for people: a line for each kind of fault, then what was left out, the load, and the goodput."""
    lines = ["| fault | times | seconds lost, each | bar | |", "|---|---|---|---|---|"]
    for kind, losses in found.by_kind().items():
        seconds = ", ".join(f"{loss.lost_s:.1f}" for loss in losses)
        bar = f"{losses[0].bar_s:.0f} s" if losses[0].bar_s is not None else ""
        late = sum(not loss.within for loss in losses)
        lines.append(f"| {KINDS[kind]} | {len(losses)} | {seconds} | {bar} | {f'{late} over the bar' if late else 'within'} |")
    lines += ["", *(f"Left out: {KINDS[kind]}. {why}" for kind, why in left_out.items())]
    quiet = sum(loss.lost_s for loss in found.losses if not loss.kind)
    lines.append(f"Before the first fault {quiet:.1f} s were lost.")
    loads = [loss.load for loss in found.losses if loss.kind]
    if loads:
        lines.append(f"Load of this machine at the faults: {min(loads):.0f} to {max(loads):.0f} processes on {os.cpu_count()} cores.")
    verdict = "not less" if found.goodput >= found.bound else "LESS"
    lines.append(f"Goodput {found.goodput:.1%} of {found.wall_s:.0f} s; that is {verdict} than the {found.bound:.1%} that the bars allow.")
    return "\n".join(lines)


def equality_in_words(difference: float, most: float) -> str:
    """Whether results are equal, for people."""
    equal = "equal" if difference <= most else "NOT EQUAL"
    return f"Results are {equal}: the averaged weights differ by at most {difference:.2g} from those of an undisturbed training."
