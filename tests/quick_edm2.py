"""The command in a process of its own whose tasks are forked from the forking process that tests share.

The command as users have it, with a forking process of its own, runs in tests/pipelines/run/test_run_experiment.py.
"""

import os
import sys

from pipelines.cli.main import main
from tests.forking import PYTHONPATH, borrow, forking


def quick_edm2(*arguments: str) -> list[str]:
    """What starts it, in any folder."""
    program = f"import sys; sys.path[:0] = {PYTHONPATH.split(os.pathsep)!r}; from tests.quick_edm2 import begin; begin()"
    return [sys.executable, "-c", program, forking().address, *arguments]


def begin() -> None:
    address = sys.argv.pop(1)
    borrow(setattr, lambda: address)
    main()
