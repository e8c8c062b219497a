"""A plan's tasks and a cluster's profile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.launcher.profile import Profile
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task

PROFILE = {
    "name": "test",
    "namespace": "team",
    "store": {"uri": "s3://bucket/prefix", "env": {"EDM2_S3_ENDPOINT": "http://minio:9000"}, "secret": "keys"},
    "images": {"compute": "registry/compute:1", "control": "registry/control:1"},
    "resources": {"default": {"cpu": "2", "memory": "8Gi"}, "snapshot": {"nodes": 2, "gpus": 4, "cpu": "32"}},
}


@pytest.fixture
def profile() -> Callable[..., Profile]:
    """A profile with some of its settings replaced."""
    return lambda **changes: Profile.loads(json.dumps({**PROFILE, **changes}))


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Preparing digits, and two snapshots of one training."""
    experiment: dict[str, Any] = {"name": "x", "recipes": ["digits/C"], "epochs": [1, 2], "metrics": [], "probe": False}
    (tmp_path / "e.yaml").write_text(json.dumps(experiment))
    return plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})
