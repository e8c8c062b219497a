"""The command, called within the tests' own process."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli.main import main

Edm2 = Callable[..., tuple[int, str]]


@pytest.fixture
def edm2(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Edm2:
    """Run the command in `tmp_path`, and return its exit code and all it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["edm2", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capfd.readouterr()
        return int(caught.value.code or 0), printed.out + printed.err

    return call
