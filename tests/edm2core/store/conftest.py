"""Stores that one suite runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from edm2core.store import Store, open_store


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


@pytest.fixture(params=["local"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)
