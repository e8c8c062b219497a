"""Metrics of the user's own code, which compare images themselves."""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edm2core.errors import InputError
from edm2core.metrics.compared import Value
from edm2core.registry import load


class OwnMetric(Protocol):
    """A metric of one's own. Lower values are better, as of a distance. Its other parameters are settings."""

    def __call__(self, samples: NDArray[np.uint8], real: NDArray[np.uint8], /) -> float | tuple[float, float]:
        """The value, or the value and its standard error, of samples [n, C, H, W] beside the training images [N, C, H, W]."""


def own_value(address: str, samples: NDArray[np.uint8], real: NDArray[np.uint8], **options: Any) -> Value:
    """The value of an own metric with these settings. Raises InputError, which names the code, if it gives no finite number."""
    given = load(address)(samples, real, **options)
    try:
        value, error = given if isinstance(given, tuple) else (given, None)
        measured = Value(float(value), None if error is None else float(error))
    except (TypeError, ValueError):
        measured = Value(math.nan)
    if not math.isfinite(measured.value) or (measured.error is not None and not math.isfinite(measured.error)):
        what = f"The own metric gave {given!r:.80}, which is no finite number."
        raise InputError(what, where=address, do_next="Return a float, or a float and its standard error.")
    return measured
