"""EDM2 experiments from Python: run them, read their results, draw images, and measure images of any origin.

Importing this package imports nothing else. Reading and measuring need no package of a cluster, and reading results needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edm2.evaluation import evaluate as evaluate
    from edm2.experiments import run as run
    from edm2.exporting import export as export
    from edm2.images import sample as sample
    from edm2.images import write_images as write_images
    from edm2.snapshots import Snapshot as Snapshot
    from edm2.snapshots import find_snapshot as find_snapshot
    from edm2.stores import OpenRun as OpenRun
    from edm2.stores import OpenStore as OpenStore
    from edm2.stores import Rows as Rows
    from edm2.stores import open as open
    from edm2core.errors import EdmError as EdmError
    from edm2core.errors import InputError as InputError

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
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edm2' has no attribute {name!r}; it has {', '.join(sorted(_HOME))}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
