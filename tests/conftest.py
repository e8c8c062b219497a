"""What several folders of tests share."""

import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.needs import NEEDS
from tests.waiting import wait_until

settings.register_profile("tests", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("tests")
LONGEST = (  # the files of fast tests that take longest
    "test_entry.py",
    "test_run_experiment.py",
    "test_science.py",
    "test_trainer.py",
    "test_compiling.py",
    "test_check.py",
    "test_server.py",
    "test_sample.py",
    "test_toy_stage.py",
    "test_wheel.py",
)
LEFT_OUT: dict[str, int] = {}  # what is missing, and how many tests need it


def pytest_itemcollected(item: pytest.Item) -> None:
    """What needs a GPU is about the device that it runs on, so that `-m gpu` chooses it."""
    if any(mark.args[0] == "gpu" for mark in item.iter_markers("needs")):
        item.add_marker("gpu")


@pytest.hookimpl(trylast=True)  # those that -m leaves out lack nothing
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need what is not here; refuse to where CI promises that all is."""
    asked = {mark.args[0] for item in items for mark in item.iter_markers("needs")}
    missing = {name for name in asked if NEEDS[name].missing}  # whether there is a GPU takes importing torch
    kept, left_out = [], []
    for item in items:
        lacking = [mark.args[0] for mark in item.iter_markers("needs") if mark.args[0] in missing]
        (left_out if lacking else kept).append(item)
        for name in lacking:
            LEFT_OUT[name] = LEFT_OUT.get(name, 0) + 1
    absent = [name for name in LEFT_OUT if NEEDS[name].in_ci and os.environ.get("CI")]
    if absent:
        raise pytest.UsageError("; ".join(f"tests need {name}: {NEEDS[name].get}" for name in absent))
    config.hook.pytest_deselected(items=left_out)
    slow = Counter(item.path for item in kept if item.get_closest_marker("slow"))
    # Long files first, so that no process ends long after the others.
    items[:] = sorted(kept, key=lambda item: (-slow[item.path], item.path.name not in LONGEST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and how to have it."""
    for name, count in LEFT_OUT.items():
        terminalreporter.write_line(f"Left out: {count} tests that need {name} ({NEEDS[name].get}).", yellow=True)


@pytest.fixture(autouse=True, scope="session")
def _no_test_waits_for_the_disk() -> Iterator[None]:
    """Writing through to the disk takes milliseconds, thousands of times. A test of a power cut looks at os.fsync itself."""
    with pytest.MonkeyPatch.context() as during:
        during.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _no_lease_outlives_its_test() -> Iterator[None]:
    """A lease that a test leaves behind would warn, in a later test's output, that its store's folder is gone."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("lease "):
            thread._target.__self__._stop.set()  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server with an empty database."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", uri.rpartition(":")[2], "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    log = (folder / "log").open("w")
    alone = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # its job runner is seven processes more
    server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **alone})
    try:
        wait_until(lambda: server.poll() is not None or _answers(f"{uri}/health"), 120.0)
        assert server.poll() is None, f"the MLflow server ended; see {folder}/log"
        yield uri
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url):
            return True
    except (urllib.error.URLError, ConnectionError):
        return False
