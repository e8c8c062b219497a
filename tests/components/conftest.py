from pathlib import Path

import pytest
from kfp.dsl import HTML

from components.kubeflow_task import Done
from edm2core.plan.manifest import Manifest
from edm2core.store.local import LocalStore


@pytest.fixture
def done(tmp_path: Path) -> Done:
    """A result without any file yet."""
    manifest = Manifest("probe", 1, "key", "C <b>& E", {}, {}, {}, "attempt", {})
    return Done(manifest, LocalStore(tmp_path / "store"))


@pytest.fixture
def page(tmp_path: Path) -> HTML:
    return HTML(uri=str(tmp_path / "page.html"))
