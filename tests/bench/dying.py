"""A side of a benchmark that dies as one that the kernel ends for its memory."""

import os
import signal

from bench.worker import Work


def dying() -> Work:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return work
