from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.own_code.source import OwnCode


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., OwnCode]:
    """Writes a package `mine` of these files."""

    def write(**files: str) -> OwnCode:
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / "mine" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return OwnCode("mine", tmp_path / "mine")

    return write
