"""EDM2 experiments from Python: run them, read their results, draw images, and measure images of any origin.

Importing this package imports nothing else. Reading and measuring need no package of a cluster, and reading results needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edm2.evaluation import evaluate
    from edm2.experiments import run
    from edm2.exporting import export
    from edm2.images import sample, write_images
    from edm2.snapshots import Snapshot, find_snapshot
    from edm2.stores import OpenRun, OpenStore, Rows, open
    from edm2core.errors import EdmError, InputError

_HOME = {
    "EdmError": "edm2core.errors",
    "InputError": "edm2core.errors",
    "OpenRun": "edm2.stores",
    "OpenStore": "edm2.stores",
    "Rows": "edm2.stores",
    "Snapshot": "edm2.snapshots",
    "evaluate": "edm2.evaluation",
    "export": "edm2.exporting",
    "find_snapshot": "edm2.snapshots",
    "open": "edm2.stores",
    "run": "edm2.experiments",
    "sample": "edm2.images",
    "write_images": "edm2.images",
}
__all__ = [
    "EdmError",
    "InputError",
    "OpenRun",
    "OpenStore",
    "Rows",
    "Snapshot",
    "evaluate",
    "export",
    "find_snapshot",
    "open",
    "run",
    "sample",
    "write_images",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edm2' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
