"""The program of every stage: `python -m edm2core.stages.<stage> TASK --store URI`."""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edm2core.config.validate import other_version
from edm2core.errors import EdmError, InputError, Interrupted
from edm2core.events import emit
from edm2core.plan.manifest import Manifest, Ref, diff_path
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from edm2core.plan.versions import version_of
from edm2core.provenance.origin import changes, describe, host_and_device, remember_code
from edm2core.provenance.science import UNKNOWN, canonical, science_of
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.leases import Busy, acquire
from edm2core.store.own_code import OwnCodeError, bring, failure
from edm2core.store.results import commit, load, new_attempt, upload_files
from edm2core.store.scratch import Scratch
from edm2core.worker import signals
from edm2core.worker.exit_codes import BAD_INPUT, DEVICE_FAILED, DONE, FAILED, INTERRUPTED, TRY_AGAIN
from edm2core.worker.faults import shortage
from edm2core.worker.heartbeat import Heartbeat
from edm2core.worker.rendezvous import record_rendezvous
from edm2core.worker.workspace import Input, Workspace, open_inputs, wait_for_inputs

BEGINS_S = 30.0  # the most time between the beginnings of two processes of a job, which torchrun starts at once
MEETS_S = 60.0  # the most time that processes take to meet


def main(stage: str, run: Callable[[Workspace], None]) -> None:
    """Work on one task until its manifest is in the store, then exit with one of the codes in exit_codes.py."""
    sys.exit(serve(lambda task, store: _work(task, store, run), stage))


def serve(work: Callable[[Task, Store], None], stage: str) -> int:
    """Read the command line, call `work`, and turn the error that it raises into words and an exit code."""
    signals.install()
    signals.die_with_parent()
    remember_code()
    parser = argparse.ArgumentParser(prog=f"python -m edm2core.stages.{stage}", description=f"Work on one {stage} task of a plan.")
    parser.add_argument("task", help="the task as JSON, or a file that holds it")
    parser.add_argument("--store", required=True, help="URI of the store: a folder, minio://bucket/prefix or s3://bucket/prefix")
    parser.add_argument("--wait", action="store_true", help="wait until other jobs have made the task's inputs")
    arguments = parser.parse_args()
    try:
        task, store = _read_task(arguments.task), open_store(arguments.store)
        if arguments.wait:
            wait_for_inputs(task, store)
        work(task, store)
        return DONE
    except Interrupted as stop:
        emit("interrupted", message=stop.what)
        return INTERRUPTED
    except Busy as busy:
        emit("busy", message=str(busy))
        return TRY_AGAIN
    except EdmError as error:
        return _failed(error)
    except ValidationError as error:
        return _failed(other_version(error))
    except Exception as error:
        if lacking := shortage(error, stage):
            return _failed(lacking)
        traceback.print_exc()
        if (code := _may_pass(error)) is not None:
            lost = "its device" if code == DEVICE_FAILED else "its peers"
            emit("warning", message=f"rank {_rank()} lost {lost}: {str(error).splitlines()[0][:200]}", rank=_rank())
            return code
        emit("failed", what=f"{type(error).__name__}: {error}", where=f"stage {stage}", do_next="Its log has the traceback.", rank=_rank())
        return FAILED


def _failed(error: EdmError) -> int:
    lines = error.lines if isinstance(error, OwnCodeError) else []
    emit("failed", what=error.what, where=error.where, do_next=error.do_next, rank=_rank(), **({"lines": lines} if lines else {}))
    sys.stderr.write("\n".join([str(error), *lines]) + "\n")
    return (BAD_INPUT if isinstance(error, InputError) else FAILED) if error.permanent else TRY_AGAIN


def _may_pass(error: Exception) -> int | None:
    """The exit code of an error that starting all processes again may cure, since another process or a device has failed; else None."""
    names = {kind.__name__ for kind in type(error).__mro__}  # names, since not every stage imports torch
    if "AcceleratorError" in names:
        return DEVICE_FAILED
    return INTERRUPTED if "DistError" in names or (isinstance(error, RuntimeError) and "gloo" in str(error).lower()) else None


def _read_task(text: str) -> Task:
    try:
        return Task.from_json(json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"This is not a task: {error}.", where=text[:200], do_next="Give a file that `edm2 plan --json` wrote.") from None


def _work(task: Task, store: Store, run: Callable[[Workspace], None]) -> None:
    with processes() as (rank, world_size):
        make(task, store, run, rank, world_size)


def make(task: Task, store: Store, run: Callable[[Workspace], None], rank: int = 0, world_size: int = 1) -> None:
    """Make one task's result, if it is not in the store, as one of `world_size` processes. Raises Busy if others work on it."""
    started = time.time()
    with claim(store, task.ref, rank, world_size) as generation:
        if load(store, task.ref) is not None:  # asked under the lease, when nobody else can commit it: all processes see the same
            return
        must_be_of_this_version(task)
        with work_folder(store, task.ref, rank, generation) as folder:
            emit("start", task=task.title, generation=generation)
            inputs = open_inputs(task, store, folder / "inputs")
            out = folder / "out"
            out.mkdir()
            work = Workspace(task, store, out, unfinished(task, store, generation, rank), inputs, rank, world_size)
            if rank == 0 or STAGES[task.stage].splits_work:
                snapshot = inputs.get("snapshot")
                of_network = snapshot.manifest.metadata.get("code", {}) if snapshot else {}
                with own_code({**of_network, **task.code}, store, folder / "code"):
                    run(work)
            if rank == 0:
                commit(store, manifest_of(task, store, inputs, out, work.metadata, {**describe(started), "world_size": world_size}))
                Scratch(store, task.ref.scratch, generation).clear()
                emit("commit", task=task.title, ref=str(task.ref))


@contextmanager
def own_code(contents: Mapping[str, str], store: Store, folder: Path) -> Iterator[None]:
    """A context in which own code can be imported, and what fails in it raises an OwnCodeError. Raises as `bring`."""
    bring(contents, store, folder)
    try:
        yield
    except EdmError:
        raise
    except Exception as error:
        own = None if shortage(error, "") else failure(error)  # while the files are there, whose lines it shows
        if own is None:
            raise
        raise own from error


def unfinished(task: Task, store: Store, generation: int, rank: int) -> Scratch:
    """The scratch of a task's finished parts. Each version of the code has its own, so that no result is made by two versions."""
    name = canonical(science_of(task.stage)) or UNKNOWN
    if rank == 0 and set(store.folders(f"{task.ref.scratch}/")) - {name}:
        emit("warning", task=task.title, message="parts that other science has made are not used: they are made anew")
    return Scratch(store, f"{task.ref.scratch}/{name}", generation)


def must_be_of_this_version(task: Task) -> None:
    """Raise InputError if the task was planned for another version of its stage: its key must not get this version's numbers."""
    if (made := version_of(task.stage, task.settings)) != task.version:
        other = f"The task asks for version {task.version} of the numbers of '{task.stage}'; this program makes version {made}."
        do_next = "Run or submit its experiment again, which plans it for this version; results that are there stay."
        raise InputError(other, where=task.title, do_next=do_next)


def manifest_of(
    task: Task, store: Store, inputs: dict[str, Input], out: Path, metadata: dict[str, object], provenance: dict[str, object]
) -> Manifest:
    """Store the files below `out`, and the diff of the code if it differs from its revision. Returns the manifest, not yet committed."""
    code = {"science": science_of(task.stage)}
    if difference := changes(task.stage).encode():
        code["diff"] = hashlib.sha256(difference).hexdigest()
        store.create(diff_path(code["diff"]), difference)
    attempt = new_attempt()
    files = upload_files(store, task.ref, attempt, out)
    refs, digests = {n: str(i.manifest.ref) for n, i in inputs.items()}, {n: i.manifest.digest for n, i in inputs.items()}
    about = task.stage, task.version, task.key, task.title, task.settings
    return Manifest(*about, refs, digests, attempt, files, {**task.subject.to_json(), **metadata}, {**provenance, **code})


@contextmanager
def processes() -> Iterator[tuple[int, int]]:
    """This process's rank and the world size. If there are several processes, torch.distributed is set up, and taken down at the end."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield 0, 1
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    cuda, heartbeat = torch.cuda.is_available(), Heartbeat()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    heartbeat.within(MEETS_S)  # a process that is lost from here on leaves the others waiting for half an hour
    store, rank, _ = next(rendezvous("env://"))
    store.set(f"edm2/{rank}", "")
    store.wait([f"edm2/{peer}" for peer in range(world_size)], timedelta(seconds=BEGINS_S))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=store, rank=rank, world_size=world_size)
    together = dist.new_group(backend="gloo", timeout=timedelta(days=1))
    heartbeat.pause()
    sys.stdout.write(f"process {dist.get_rank() + 1} of {world_size} works on {host_and_device()}\n")
    sys.stdout.flush()
    try:
        yield dist.get_rank(), world_size
        # torchrun may end the job once one process exits, so none exits before everything is written.
        dist.barrier(group=together)  # type: ignore[arg-type]
    finally:
        dist.destroy_process_group()


@contextmanager
def claim(store: Store, ref: Ref, rank: int, world_size: int) -> Iterator[int]:
    """Hold the lease on `ref`, in rank 0; every rank gets the lease's generation, which is also the number of the rendezvous.

    While another job works on it, raises Busy in rank 0 and an EdmError with the same words in the others. All raise an EdmError once the
    processes of a training have met too often without a newer state.
    """
    refusal: EdmError | None = None
    with ExitStack() as held:
        answer: list[Any] = [0, ()]  # the generation, or what the error says of why there is none
        if rank == 0:
            try:
                answer[0] = held.enter_context(acquire(store, ref, os.environ.get("EDM2_OWNER", ""))).generation
                if world_size > 1 and ref.stage == "trajectory":
                    record_rendezvous(store, ref, answer[0], world_size)
            except EdmError as error:
                refusal, answer[1] = error, (error.what, error.where, error.do_next, error.permanent)
        if world_size > 1:
            import torch.distributed as dist

            dist.broadcast_object_list(answer, src=0)
        generation, why_not = answer
        if why_not:
            what, where, do_next, permanent = why_not
            raise refusal or EdmError(what, where=where, do_next=do_next, permanent=permanent)
        if world_size > 1:
            emit("rendezvous", number=generation, processes=world_size)
        yield generation


@contextmanager
def work_folder(store: Store, ref: Ref, rank: int, generation: int) -> Iterator[Path]:
    """An empty folder for this process: inside a local store, so that results are linked instead of copied, else in `EDM2_WORK`.

    Below `EDM2_WORK` each store has a folder of its own, since several stores may be worked for on one machine.

    Each generation of the lease has its own, so a process that has lost the lease and lives on does not touch its successor's. The folders
    of earlier generations are removed.
    """
    local = getattr(store, "root", None)
    here = hashlib.sha256(f"{getattr(store, 'endpoint', '')} {store.uri}".encode()).hexdigest()[:12]
    base = Path(local) / "work" if local else Path(os.environ.get("EDM2_WORK", tempfile.gettempdir())) / f"edm2-work-{here}"
    name = f"{ref.stage}-{ref.key}-{rank}"
    folder = base / f"{name}-{generation}"
    for left in base.glob(f"{name}-*"):
        if int(left.name.rpartition("-")[2]) < generation:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
