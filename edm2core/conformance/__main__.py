"""Checks own code in a process of its own: `python -m edm2core.conformance CODE`, CODE as JSON; each outcome is an event."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edm2core.conformance import Check, Images, Outcome, network, others
from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.store.own_code import OwnCodeError, failure, import_from

FAMILIES: dict[str, Callable[[str, dict[str, Any], Images], dict[str, Check]]] = {
    "network": network.checks,
    "loss weighting": others.weighting,
    "learning-rate schedule": others.schedule,
    "optimizer": others.optimizer,
    "solver": others.solver,
    "metric": others.metric,
    "data format": others.data_format,
}


def main(text: str) -> None:
    """Check what the JSON names: address, family, its settings `own`, `images`, and the `folder` that its package is imported from."""
    asked = json.loads(text)
    package = asked["address"].partition(":")[0].partition(".")[0]
    import_from(Path(asked["folder"]), package)
    checks = _told(lambda: FAMILIES[asked["family"]](asked["address"], asked["own"], Images(**asked["images"])))
    for name, check in (checks or {}).items():
        emit("checking", name=name)
        outcomes = _told(check)
        for outcome in [outcomes] if isinstance(outcomes, Outcome) else outcomes or ():
            emit("check", name=name, **asdict(outcome))


def _told(work: Callable[[], Any]) -> Any:
    """What the work returns, its outcomes computed; if it fails, the failure is an outcome."""
    try:
        made = work()
        return list(made) if isinstance(made, Iterable) and not isinstance(made, dict) else made
    except EdmError as error:
        emit("check", name="", **asdict(Outcome("problem", error.what, error.do_next)))
    except Exception as error:
        own: OwnCodeError | None = failure(error)
        lines = own.lines if own else []
        what = own.what if own else f"{type(error).__name__}: {error}"
        emit("check", name="", lines=lines, **asdict(Outcome("problem", what, f"Mend {own.where}." if own else "")))
    return None


if __name__ == "__main__":
    main(sys.argv[1])
