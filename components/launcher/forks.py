"""Tasks as forks of one process that has already imported what they import. This saves each task one to three seconds of a core.

It is for machines without a GPU: CUDA does not survive a fork, and tasks on a GPU take so long that the seconds do not matter.

The forking process gets orders through a pipe. It answers each order with ("began", PID), where PID is None if the system refuses to fork.
It sends ("ended", PID, CODE) when a fork has ended. It ends when the pipe is closed, and so with the process that started it. Its forks die
with it.
"""

import contextlib
import gc
import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from edm2core.plan.stages import STAGES
from edm2core.provenance.origin import remember_code

IMPORTED = tuple(stage.module for stage in STAGES.values() if stage.imports_torch)  # the modules to import, in this order


class Fork:
    """A forked task, with those methods of a `subprocess.Popen` that the launcher needs."""

    def __init__(self, forks: "Forks", pid: int) -> None:
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
        self._pipe, servers = Pipe()
        with servers:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(servers.fileno())],
                pass_fds=[servers.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a module that cannot be imported says so in the task's own log
                start_new_session=True,
                env=environment,
            )
        self._lock, self._codes, self._answers = threading.Lock(), dict[int, int](), list[int | None]()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Fork | None:
        """A fork that does what `python ARGUMENTS` would, in its own process group. None if the forking process is gone or cannot fork."""
        with self._lock:
            try:
                self._pipe.send((list(arguments), dict(environment), str(log)))
                while not self._answers:
                    self._listen()
            except (OSError, EOFError):
                return None
            pid = self._answers.pop()
            return None if pid is None else Fork(self, pid)

    def code(self, pid: int) -> int | None:
        """The exit code of a fork; None while it runs. Forks end with the forking process."""
        with self._lock:
            with contextlib.suppress(OSError, EOFError):
                while pid not in self._codes and self._pipe.poll():
                    self._listen()
            return self._codes.get(pid, None if self._server.poll() is None else -signal.SIGKILL)

    def kill(self) -> None:
        """End the forking process, and with it all forks, at once."""
        self._server.kill()

    def _listen(self) -> None:
        """Wait for a message of the forking process. Raises EOFError or OSError if that process has ended."""
        kind, pid, *code = self._pipe.recv()
        if kind == "ended":
            self._codes[pid] = code[0]
        else:
            self._answers.append(pid)


def main(pipe: Connection) -> None:
    """Fork as ordered through the pipe, and import modules while no order waits."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting, server = list(IMPORTED), os.getpid()
    remember_code()  # forks run the code that is imported here, even if its files change later
    while True:
        readable = wait([pipe, woken], 0 if waiting else None)
        if not readable:
            importlib.import_module(waiting.pop(0))
            gc.freeze()  # so that a fork's garbage collector does not write to shared pages
        if woken in readable:
            os.read(woken, 1 << 16)
            _reap(pipe)
        if pipe in readable:
            try:
                arguments, environment, log = pipe.recv()
            except (EOFError, OSError):
                return
            ready, say_ready = os.pipe()
            try:
                pid = os.fork()
            except OSError:
                pid = None
            if pid == 0:
                os.close(ready)
                pipe.close()
                return _become(arguments, environment, log, server, say_ready)
            os.close(say_ready)
            os.read(ready, 1)  # returns when the fork is ready or has died
            os.close(ready)
            pipe.send(("began", pid))


def _reap(pipe: Connection) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            pipe.send(("ended", ended[0], os.waitstatus_to_exitcode(ended[1])))


def _become(arguments: list[str], environment: dict[str, str], log: str, server: int, say_ready: int) -> None:
    """Turn this fork into `python -m MODULE ARGUMENT…` in its own session, with its output in the log."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.close(say_ready)  # from now on this fork's process group can be signalled and its log read
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment, EDM2_DIE_WITH_PARENT=str(server))
    _, module, *sys.argv[1:] = arguments
    sys.modules.pop(module, None)  # it runs as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
