"""The small drawing beside a verdict: each recipe's mean, its interval and its seeds on one axis."""

from dataclasses import dataclass

from edm2core.report.digits import rounded
from edm2core.report.verdict import Mean, Verdict

MOST = 9  # recipes in a drawing
MARGIN = 0.04  # of the axis, left free at both ends


@dataclass(frozen=True)
class Row:
    """One recipe's marks, each in percent of the axis's length."""

    mean: Mean
    at: float
    line: tuple[float, float] | None
    seeds: tuple[float, ...]
    words: str


@dataclass(frozen=True)
class Drawn:
    """A verdict and its drawing."""

    verdict: Verdict
    rows: list[Row]
    left_out: int  # recipes that are worse than those drawn
    ends: tuple[str, str]  # the values at 0 and 100 percent


def drawn(verdict: Verdict) -> Drawn:
    """The drawing of a verdict's means. An axis of lower-is-better values runs as all axes do: small values are on the left."""
    numbers = [number for mean in verdict.means[:MOST] for number in (*mean.values, *(mean.interval or ()))]
    low, high = min(numbers), max(numbers)
    room = MARGIN * (high - low) or 0.05 * abs(low) or 1.0
    low, high = low - room, high + room

    def at(number: float) -> float:
        return round(float(100 * (number - low) / (high - low)), 2)

    rows = [
        Row(
            mean,
            at(mean.mean),
            (at(mean.interval[0]), at(mean.interval[1])) if mean.interval else None,
            tuple(map(at, mean.values)),
            _words(mean, verdict.places),
        )
        for mean in verdict.means[:MOST]
    ]
    return Drawn(verdict, rows, len(verdict.means) - len(rows), (rounded(low, verdict.places), rounded(high, verdict.places)))


def _words(mean: Mean, places: int) -> str:
    spread = "" if mean.deviation is None else f" ± {rounded(mean.deviation, places)}"
    return rounded(mean.mean, places) + spread
