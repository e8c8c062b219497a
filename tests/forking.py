"""A forking process that the tests of one process share: importing what stages import takes five seconds of a core."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from components.launcher import local
from components.launcher.forks import Forks, Process, begin
from components.launcher.local import STAGE_MODULES

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "pipelines" / "python")])


@cache
def forking() -> Forks:
    """It has imported what stages import, and ends with the process of the tests."""
    with contextlib.chdir(ROOT):  # a test's own folder is removed
        return Forks(STAGE_MODULES, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH})


class Borrowed:
    """Stands in for the `Forks` of a driver: the forking process at an address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def kill(self) -> None:
        """Others still need it. The driver ends its tasks one by one."""


def begin_here(address: str, arguments: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Process:
    """Stands in for `begin`: a borrowed process starts a driver's tasks in the driver's folder, not in its own."""
    return begin(address, ["-m", "tests.forked", os.getcwd(), *arguments] if address else arguments, environment, output, errors)


def borrow(set_: Callable[[object, str, object], None], address: Callable[[], str]) -> None:
    """Let drivers in this process fork their tasks from the forking process at an address. `set_` is `setattr`, or undoes itself."""
    set_(local, "Forks", lambda modules, environment: Borrowed(address()))
    set_(local, "begin", begin_here)
