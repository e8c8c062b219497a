"""Tasks as forks of one process that has already imported what they import. This saves each task one to three seconds of a core.

It is for machines without a GPU: CUDA does not survive a fork, and tasks on a GPU take so long that the seconds do not matter.

The forking process reads orders from its standard input. On its standard output it answers each with `began PID` or `refused`, and says
later `ended PID CODE`. It ends when its input ends, and so with the process that started it. Its forks die with their parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edm2core.plan.stages import STAGES
from edm2core.provenance.origin import remember_code

IMPORTED = tuple(stage.module for stage in STAGES.values() if stage.imports_torch)  # in this order, when idle


class Fork:
    """A forked task, with those methods of a `subprocess.Popen` that the launcher needs."""

    def __init__(self, forks: Forks, pid: int) -> None:
        self._forks, self.pid = forks, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forks.code(self.pid)
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        return self.returncode or 0


class Forks:
    """The forking process, as the launcher sees it; it begins to import at once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a module that cannot be imported says so in the task's own log
            start_new_session=True,
            env=environment,
        )
        self._lock, self._heard, self._codes, self._answers = threading.Lock(), b"", dict[int, int](), list[int | None]()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Fork | None:
        """A fork that does what `python ARGUMENTS` would, in its own process group; None if that process has ended or cannot fork."""
        assert self._server.stdin is not None  # noqa: S101
        with self._lock:
            try:
                self._server.stdin.write(json.dumps([list(arguments), dict(environment), str(log)]).encode() + b"\n")
                self._server.stdin.flush()
            except OSError:
                return None
            while not self._answers:
                if not self._listen(None):
                    return None
            pid = self._answers.pop()
            return None if pid is None else Fork(self, pid)

    def code(self, pid: int) -> int | None:
        """The exit code of a fork; None while it runs. Forks end with the forking process."""
        with self._lock:
            while pid not in self._codes and self._listen(0):
                pass
            return self._codes.get(pid, None if self._server.poll() is None else -signal.SIGKILL)

    def kill(self) -> None:
        """End the forking process, and with it all forks, at once."""
        self._server.kill()

    def _listen(self, timeout: float | None) -> bool:
        """Read what the forking process says; False if it says nothing within the time-out, or has ended."""
        assert self._server.stdout is not None  # noqa: S101
        pipe = self._server.stdout.fileno()
        if not select.select([pipe], [], [], timeout)[0] or not (data := os.read(pipe, 1 << 16)):
            return False
        *lines, self._heard = (self._heard + data).split(b"\n")
        for word, *numbers in map(bytes.split, lines):
            if word == b"ended":
                self._codes[int(numbers[0])] = int(numbers[1])
            else:
                self._answers.append(int(numbers[0]) if word == b"began" else None)
        return True


def main() -> None:
    """Serve orders, importing while there are none."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting, heard, server = list(IMPORTED), b"", os.getpid()
    remember_code()  # forks run the code that is imported here, even if its files change later
    while True:
        readable, _, _ = select.select([0, woken], [], [], 0 if waiting else None)
        if not readable:
            importlib.import_module(waiting.pop(0))
            gc.freeze()  # so that a fork's garbage collector does not write to shared pages
        if woken in readable:
            os.read(woken, 1 << 16)
            _reap()
        if 0 in readable:
            data = os.read(0, 1 << 16)
            if not data:
                return
            *orders, heard = (heard + data).split(b"\n")
            for order in orders:
                ready, say_ready = os.pipe()
                try:
                    pid = os.fork()
                except OSError:
                    os.write(1, b"refused\n")
                    pid = -1
                if pid == 0:
                    os.close(ready)
                    arguments, environment, log = json.loads(order)
                    return _become(arguments, environment, log, server, say_ready)
                os.close(say_ready)
                if pid > 0:
                    os.read(ready, 1)  # returns when the fork is ready or has died
                    os.write(1, f"began {pid}\n".encode())
                os.close(ready)


def _reap() -> None:
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            os.write(1, f"ended {ended[0]} {os.waitstatus_to_exitcode(ended[1])}\n".encode())
    except ChildProcessError:
        pass


def _become(arguments: list[str], environment: dict[str, str], log: str, server: int, say_ready: int) -> None:
    """Turn this fork into `python -m MODULE ARGUMENT…` in its own session, with its output in the log."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.close(say_ready)  # from now on its group can be signalled and its log read
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment, EDM2_DIE_WITH_PARENT=str(server))
    _, module, *sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # it runs as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
