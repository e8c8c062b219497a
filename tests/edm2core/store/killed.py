"""Work that is killed, at each of its lines in turn."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from types import FrameType, ModuleType
from typing import Any


def killed_at_each_line(module: ModuleType, work: Callable[[], object]) -> Iterator[int]:
    """Do the work in a child process that SIGKILL ends before it runs its first line of a module.

    Then do it in one that ends before its second line, and so on, until one does all of it. Yields the line's number after each.
    """
    for fatal in count(1):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sys.settrace(_killer(str(module.__file__), fatal))
                work()
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        yield fatal
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the work failed by itself"
            return


def _killer(file: str, fatal: int) -> Callable[[FrameType, str, Any], Any]:
    lines = count(1)

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code.co_filename != file:
            return None
        if event == "line" and next(lines) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace
