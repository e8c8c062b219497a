"""Jobs as processes of this machine; they end when this process ends."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from components.launcher.forks import Fork, Forks, Process, begin
from components.launcher.processes import MALLOC, is_stopped, of_one_machine, send
from components.launcher.spec import JobSpec, Status
from edm2core.errors import EdmError
from edm2core.plan.stages import STAGES

STAGE_MODULES = tuple(stage.module for stage in STAGES.values() if stage.imports_torch)


@dataclass
class _Running:
    process: Process
    log: Path
    read: int = 0


class LocalBackend:
    """Starts each job once, in a process group of its own, with its output in the file that `log_path` names.

    With `forking`, a job of one process is a fork of a process that has already imported what the job imports.
    """

    def __init__(self, log_path: Callable[[JobSpec], Path], threads: int, forking: bool = False) -> None:
        self._log_path = log_path
        self._threads, self._forking = threads, forking
        self._forks: Forks | None = None  # made for the first job
        self._jobs: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def start(self, spec: JobSpec) -> None:
        with self._lock:
            for job in self._jobs.values():
                job.process.poll()  # nobody polls a job again once its result is there, so it would stay a zombie
            running = self._jobs.get(spec.name)
            if running is not None and running.process.returncode is None:
                return
            log = self._log_path(spec)
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
            read = running.read if running and running.log == log else log.stat().st_size  # leave out what an earlier run printed
            self._jobs[spec.name] = _Running(self._begun(spec, log), log, read)

    def _begun(self, spec: JobSpec, log: Path) -> Process:
        """The job's process: a fork, unless the job has several processes, or imports so little that a fork saves no time."""
        launcher = [] if spec.processes == 1 else ["-m", "components.launcher.entry", "--nproc-per-node", str(spec.processes)]
        address, environment = "", self._environment(spec)
        if self._forking and not launcher:
            self._forks = self._forks or Forks(STAGE_MODULES, environment)  # begins to import now, whether this job needs it or not
            address = self._forks.address if STAGES[spec.task.stage].imports_torch else ""
        try:
            with log.open("ab") as output:
                process = begin(address, [*launcher, *spec.arguments], environment, output.fileno(), output.fileno())
        except OSError as error:
            raise EdmError(
                f"This machine starts no further process: {error.strerror or error}.",
                where=spec.task.title,
                do_next="Raise its limits (`ulimit -u`, memory), or run fewer tasks at once (--jobs).",
            ) from error
        if address and not isinstance(process, Fork):
            self._forks = None  # it is gone or cannot fork
        return process

    def poll(self, name: str) -> Status:
        running = self._jobs.get(name)
        if running is None:
            return Status("absent")
        code, pid = running.process.poll(), running.process.pid
        if code is None:
            return Status("running", f"stopped from outside (SIGSTOP); `kill -CONT {pid}` lets it go on" if is_stopped(pid) else "")
        if code >= 0:
            return Status("failed", f"ended with exit code {code}", code) if code else Status("done", code=0)
        by_kernel = " (as the system does when memory runs out)" if code == -signal.SIGKILL else ""
        return Status("failed", f"killed by {signal.Signals(-code).name}{by_kernel}", code)

    def logs(self, name: str) -> list[str]:
        running = self._jobs.get(name)
        if running is None:
            return []
        with self._lock:
            try:
                with running.log.open("rb") as file:
                    file.seek(running.read)
                    data = file.read()
            except FileNotFoundError:  # somebody deleted it, perhaps with the whole store; the next request to the store will say so
                return []
            whole = data.rfind(b"\n") + 1 if running.process.poll() is None else len(data)
            running.read += whole
        return data[:whole].decode(errors="replace").splitlines()

    def stop(self, name: str, grace_s: float) -> None:
        running = self._jobs.get(name)
        if running is None or running.process.poll() is not None:
            return
        send(running.process.pid, signal.SIGTERM, os.killpg)
        end = time.monotonic() + grace_s
        while running.process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        send(running.process.pid, signal.SIGKILL, os.killpg)
        running.process.wait()

    def stop_all(self, grace_s: float) -> None:
        """Stop every job, all at once."""
        with ThreadPoolExecutor(max(1, len(self._jobs))) as pool:
            list(pool.map(lambda name: self.stop(name, grace_s), list(self._jobs)))

    close = stop_all  # no job outlives this process

    def kill_all(self) -> None:
        """End every job at once, without saving."""
        if self._forks:
            self._forks.kill()
        for running in list(self._jobs.values()):
            send(running.process.pid, signal.SIGKILL, os.killpg)

    def _environment(self, spec: JobSpec) -> dict[str, str]:
        threads = str(max(1, self._threads // spec.processes))
        return {
            **MALLOC,
            **of_one_machine(os.environ),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])),
            "EDM2_DIE_WITH_PARENT": str(os.getpid()),
        }
