"""What a calibration found, in words."""

import math
from dataclasses import dataclass
from typing import Any

from edm2core.plan.manifest import Manifest

TYPICAL = 2.0  # a distance, for saying what an error of the reference is worth


@dataclass(frozen=True)
class Calibration:
    """One comparison with what others have."""

    title: str
    found: str
    agrees: bool | None  # with what was published, within the tolerance that was given; None: nothing was
    result: str


def calibration(manifest: Manifest) -> Calibration:
    """A calibration's manifest for a person."""
    found, settings = manifest.metadata, manifest.settings
    label = found["label"]
    if settings["against"] == "statistics":
        moved = most_moved(TYPICAL, found["distance"])
        words = f"means differ by {found['mean_difference']:.2g} and covariances by {found['covariance_difference']:.2g}, relative to ours"
        words += f"; {label} between both is {found['distance']:.2g}, so {label} {TYPICAL:g} would change by at most {moved:.2g}"
        return Calibration(manifest.title, words, None, str(manifest.ref))
    words = f"{label} {found['distance']:.4g} ± {found['error']:.2g} of {found['n']} images"
    expected, tolerance = settings.get("expected"), settings.get("tolerance")
    if expected is None or tolerance is None:
        return Calibration(manifest.title, words, None, str(manifest.ref))
    agrees = abs(found["distance"] - expected) <= tolerance
    words += f"; published {expected:g}, {'within' if agrees else 'beyond'} {tolerance:g} of it"
    return Calibration(manifest.title, words, agrees, str(manifest.ref))


def most_moved(distance: float, between: float) -> float:
    """How much a distance changes at most when its reference is replaced by one `between` away: roots obey the triangle inequality."""
    between = max(between, 0.0)
    return 2 * math.sqrt(distance * between) + between


def calibration_facts(manifest: Manifest) -> dict[str, Any]:
    """The same as data."""
    asked = {name: manifest.settings.get(name) for name in ("against", "name", "expected", "tolerance")}
    return {"result": str(manifest.ref), "title": manifest.title, **asked, **manifest.metadata}
