"""A forking process that the tests of one process share: importing what stages import takes five seconds of a core."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from components.launcher.forks import Fork, Forks, fork
from components.launcher.local import STAGE_MODULES

ROOT = Path(__file__).parents[1]
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "pipelines" / "python")])


@cache
def forking() -> Forks:
    """It has imported what stages import, and ends with the process of the tests."""
    with contextlib.chdir(ROOT):  # a test's own folder is removed
        return Forks(STAGE_MODULES, {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH})


class Borrowed:
    """Stands in for the `Forks` of a driver: the forking process at an address, which starts a driver's tasks in the driver's folder."""

    def __init__(self, address: str) -> None:
        self.address = address

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Fork | None:
        with log.open("ab") as output:
            return fork(self.address, ["-m", "tests.forked", os.getcwd(), *arguments], environment, output.fileno(), output.fileno())

    def kill(self) -> None:
        """Others still need it. The driver ends its tasks one by one."""
