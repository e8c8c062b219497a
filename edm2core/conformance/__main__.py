"""Checks own code in a process of its own: `python -m edm2core.conformance CODE`, CODE as JSON; each outcome is an event."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from edm2core.conformance import Check, Images, network, others, problem
from edm2core.errors import EdmError
from edm2core.events import emit
from edm2core.registry import own_package
from edm2core.store.own_code import failure, import_from

Made = TypeVar("Made")

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
    import_from(Path(asked["folder"]), own_package(asked["address"]))
    checks = _told(lambda: FAMILIES[asked["family"]](asked["address"], asked["own"], Images(**asked["images"])))
    for name, check in (checks or {}).items():
        emit("checking", name=name)
        if outcome := _told(check):
            emit("check", name=name, **asdict(outcome))


def _told(work: Callable[[], Made]) -> Made | None:
    """What the work returns; if it fails, the failure is an outcome."""
    try:
        return work()
    except EdmError as error:
        emit("check", name="", **asdict(problem(error.what, error.do_next)))
    except Exception as error:
        own = failure(error)
        failed = problem(own.what, f"Mend {own.where}.") if own else problem(f"{type(error).__name__}: {error}", "")
        emit("check", name="", lines=own.lines if own else [], **asdict(failed))
    return None


if __name__ == "__main__":
    main(sys.argv[1])
