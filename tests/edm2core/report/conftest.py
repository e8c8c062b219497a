from __future__ import annotations

from pathlib import Path

import pytest

from tests.edm2core.report.fake_store import Fake


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """The digits demo, nothing of it done yet."""
    return Fake(tmp_path)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """The digits demo, all of it done; not to be changed."""
    return Fake(tmp_path_factory.mktemp("demo")).make()
