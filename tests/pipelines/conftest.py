"""The command called within the tests' own process, a small experiment for it, and a faster kfp."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import kfp.dsl.pipeline_task
import pytest

from pipelines.cli.main import main
from tests.forking import borrow, forking

Edm2 = Callable[..., tuple[int, str]]
TINY = """
name: tiny
recipes: [digits/G]
epochs: [1]
metrics: [fd_filters]
sample: {count: 80, steps: 2}
probe: false
overrides: {network.multipliers: [1], network.attention_resolutions: [], training.batch: 256}
"""
"""An experiment of a few seconds."""


@pytest.fixture(autouse=True, scope="session")
def _kfp_looks_at_its_caller_alone() -> Iterator[None]:
    """kfp reads the source of every frame of the stack to name its caller. In a process of pytest-xdist that takes minutes a package."""

    def stack() -> list[tuple[object, ...]]:
        return [(), (None, None, None, sys._getframe(2).f_code.co_name)]

    with pytest.MonkeyPatch.context() as during:
        during.setattr(kfp.dsl.pipeline_task, "inspect", SimpleNamespace(stack=stack))
        yield


@pytest.fixture(autouse=True, scope="session")
def _runs_in_this_process_share_a_forking_process() -> Iterator[None]:
    """Each run of the command would import for five seconds what its tasks import."""
    with pytest.MonkeyPatch.context() as during:
        borrow(during.setattr, lambda: forking().address)
        yield


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
