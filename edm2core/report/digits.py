"""How many digits of a number its error justifies."""

import math
from collections.abc import Iterable
from statistics import median

MOST = 6  # decimals
USUAL = 2  # where no error is known


def decimals(errors: Iterable[float | None]) -> int | None:
    """Decimals that show two digits of the typical error; None where no error is known or all are 0."""
    known = [abs(error) for error in errors if error and math.isfinite(error)]
    return min(MOST, max(0, 1 - math.floor(math.log10(median(known))))) if known else None


def decimals_of(values: Iterable[float]) -> int:
    """Decimals for values of unknown error: two from 1 on, else as many as show three digits of the typical value."""
    known = [abs(value) for value in values if value and math.isfinite(value)]
    if not known or median(known) >= 1:
        return USUAL
    return min(MOST, 2 - math.floor(math.log10(median(known))))


def places(values: Iterable[float], *errors: Iterable[float | None]) -> int:
    """Decimals that the first kind of error with a known one justifies; where none is known, those for the values alone."""
    known = (decimals(each) for each in errors)
    found = next((each for each in known if each is not None), None)
    return decimals_of(values) if found is None else found


def rounded(value: float, places: int) -> str:
    """A number with so many decimals, and no minus before a zero."""
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if not float(text) else text


def minus(text: str) -> str:
    """The text of a number with a minus sign instead of a hyphen, for people to read."""
    return text.replace("-", "−")


def percent(share: float) -> str:
    """A share as a change in percent, with its sign: +1.2, −0.4, +1263."""
    return minus(f"{100 * share:+.{1 if abs(share) < 1 else 0}f}")
