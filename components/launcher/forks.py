"""Processes as forks of one that has already imported what they import. This saves each of them one to three seconds of a core.

The forking process only imports. It does not touch CUDA, so a fork may use a GPU.

It listens on a Unix socket. Whoever connects sends one order: the arguments of `python`, the environment, and the files for standard output
and error. The answer is the fork's process number, or nothing if the system refuses to fork; later follows its exit code. A fork ends with
the connection of whoever ordered it. The forking process, and with it all forks, ends with the process that started it.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from edm2core.worker import signals


class Fork:
    """A forked process, with what the launcher needs of a `subprocess.Popen`."""

    def __init__(self, connection: Connection, pid: int) -> None:
        self._connection, self.pid, self._lock = connection, pid, threading.Lock()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and self._connection.poll():
                try:
                    self.returncode = int(self._connection.recv_bytes())
                except (OSError, EOFError):
                    self.returncode = -signal.SIGKILL  # it ends with the forking process
                self._connection.close()
        return self.returncode

    def wait(self) -> int:
        while self.poll() is None:
            time.sleep(0.02)
        return self.returncode or 0


Process = Fork | subprocess.Popen[bytes]


class Forks:
    """A forking process that begins to import `modules` at once, in this order. `address` is where it takes orders."""

    def __init__(self, modules: Iterable[str], environment: Mapping[str, str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edm2-forks-", ignore_cleanup_errors=True)
        self.address = str(Path(self._folder.name) / "orders")
        lives, self._life = os.pipe()
        with socket.socket(socket.AF_UNIX) as orders:
            orders.bind(self.address)
            orders.listen(64)
            self._server = subprocess.Popen(
                [sys.executable, "-u", "-m", __name__, str(lives), str(orders.fileno()), *modules],
                pass_fds=[lives, orders.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # a module that cannot be imported says so in the process's own log
                start_new_session=True,
                env=environment,
            )
        os.close(lives)

    @property
    def pid(self) -> int:
        return self._server.pid

    def kill(self) -> None:
        """End the forking process, and with it all forks, at once."""
        self._server.kill()
        self._folder.cleanup()


def fork(address: str, arguments: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Fork | None:
    """A fork that does what `python ARGUMENTS` would, in its own session. None if the forking process is gone or cannot fork.

    `address` is that of its `Forks`; `output` and `errors` are open files.
    """
    ends = socket.socket(socket.AF_UNIX)
    try:
        ends.connect(address)
        socket.send_fds(ends, [b"\0"], [output, errors])
        connection = Connection(ends.detach())
        connection.send_bytes(json.dumps([list(arguments), dict(environment)]).encode())
        return Fork(connection, int(connection.recv_bytes()))
    except (OSError, EOFError):
        ends.close()
        return None


def begin(address: str, arguments: Sequence[str], environment: Mapping[str, str], output: int, errors: int) -> Process:
    """Start `python ARGUMENTS` in its own session: as a fork if there is a forking process at `address`, else without one."""
    if address and (forked := fork(address, arguments, environment, output, errors)):
        return forked
    command = [sys.executable, "-u", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True, env=environment)


class Server:
    """The forking process."""

    def __init__(self, life: int, orders: int, modules: Sequence[str]) -> None:
        self._life, self._orders, self._waiting = life, socket.socket(fileno=orders), list(modules)
        self._running: dict[int, Connection] = {}  # who ordered each fork, by its process number
        self.address = str(self._orders.getsockname())
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def run(self) -> tuple[list[str], dict[str, str]] | None:
        """Fork as ordered, and import modules while no order waits. Returns in each fork, with its arguments and environment.

        Returns None when the process that started this one has ended.
        """
        while True:
            readable = wait([self._life, self._woken, self._orders, *self._running.values()], 0 if self._waiting else None)
            if self._life in readable:
                return None
            if self._woken in readable:
                os.read(self._woken, 1 << 16)
                self._reap()
            for pid, connection in [*self._running.items()]:
                if connection in readable:  # nothing follows an order, so whoever ordered the fork is gone
                    os.kill(pid, signal.SIGKILL)
                    connection.close()
                    del self._running[pid]
            if self._orders in readable:
                with contextlib.suppress(OSError, EOFError):  # whoever ordered is gone already
                    if order := self._fork():
                        return order
            elif self._waiting and not readable:
                importlib.import_module(self._waiting.pop(0))
                gc.freeze()  # so that a fork's garbage collector does not write to shared pages

    def _fork(self) -> tuple[list[str], dict[str, str]] | None:
        """Fork once. In the fork, returns what it is to do; here, None."""
        with self._orders.accept()[0] as peer:
            files = socket.recv_fds(peer, 1, 2)[1]
            connection = Connection(peer.detach())
        arguments, environment = json.loads(connection.recv_bytes())
        ready, say_ready = os.pipe()
        try:
            pid = os.fork()
        except OSError:
            pid = None
        if pid == 0:
            self._leave()
            os.setsid()
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(file, number)
        for file in (say_ready, *files):
            os.close(file)
        if pid == 0:
            connection.close()
            return arguments, environment
        os.read(ready, 1)  # returns when the fork has its session and files, or has died
        os.close(ready)
        if pid is None:
            connection.close()
        else:
            self._running[pid] = connection
            connection.send_bytes(str(pid).encode())
        return None

    def _leave(self) -> None:
        """Close, in a fork, what only this process uses."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._orders.close()
        for connection in self._running.values():
            connection.close()
        for file in (self._life, self._woken):
            os.close(file)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if connection := self._running.pop(ended[0], None):
                    with contextlib.suppress(OSError), connection:
                        connection.send_bytes(str(os.waitstatus_to_exitcode(ended[1])).encode())


def main() -> None:
    from edm2core.provenance.origin import remember_code  # here: whoever only orders forks begins faster without it

    life, orders, *modules = sys.argv[1:]
    here = os.getpid()
    remember_code()  # forks run the code that is imported here, even if its files change later
    server = Server(int(life), int(orders), modules)
    folder = Path(server.address).parent
    if order := server.run():
        _become(*order, here)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _become(arguments: list[str], environment: dict[str, str], server: int) -> None:
    """Turn this fork into `python -m MODULE ARGUMENT…`. It ends with the forking process."""
    os.environ.clear()
    os.environ.update(environment, EDM2_DIE_WITH_PARENT=str(server))
    signals.die_with_parent()
    del os.environ["EDM2_DIE_WITH_PARENT"]
    _, module, *sys.argv[1:] = arguments
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(module.rpartition("edm2core.")[2], encoding="utf-8")  # its name in `ps`
    sys.modules.pop(module, None)  # it runs as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
