"""Two entry programs as two pods of a job: what one does when the other is lost, with real rendezvous on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edm2core.events import parse
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task, snapshot_ref, trajectory_ref
from edm2core.stages import prepare
from edm2core.store import Store, open_store
from edm2core.store.results import load
from edm2core.store.scratch import Scratch
from edm2core.worker.main import _work
from edm2core.worker.rendezvous import rendezvous_of
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
STEPS = """
import atexit, os, pathlib, sys, time
import torch, torch.distributed as dist
from edm2core.worker import main, signals
signals.install()
here = pathlib.Path(sys.argv[1])
if (here / f"late-{os.environ['POD']}").exists():
    (here / f"late-{os.environ['POD']}").unlink()
    time.sleep(600)
main.BEGINS_S = 5.0
together = main.processes()  # kept: what is dropped takes the process group down
try:
    together.__enter__()
except dist.DistError:
    sys.exit(143)
atexit.register(dist.destroy_process_group)  # as the stages do: a thread of gloo's that is left aborts the process
print("met", flush=True)
while not (here / "end").exists():
    if (here / f"fail-{os.environ['POD']}").exists():
        sys.exit(int((here / f"fail-{os.environ['POD']}").read_text()))
    flag = torch.tensor([int(signals.asked())])
    try:
        dist.all_reduce(flag)
    except RuntimeError:
        sys.exit(143)
    if flag.item():
        (here / f"saved-{os.environ['POD']}").touch()
        sys.exit(143)
    time.sleep(0.02)
dist.barrier()
"""
EXPERIMENT = """
name: tiny
recipes: [digits/G]
epochs: [8]
metrics: []
probe: false
overrides: {network.multipliers: [1], network.attention_resolutions: [], network.dropout: 0.1, training.batch: 16}
"""


class Pod:
    """The entry program of one node, with its output in a file."""

    def __init__(self, index: int, folder: Path, command: list[str], port: int, rejoin_s: float) -> None:
        self.output = folder / f"pod-{index}-{len(list(folder.glob(f'pod-{index}-*')))}"
        meeting = {"RDZV_BACKEND": "c10d", "RDZV_ENDPOINT": f"127.0.0.1:{port}", "RDZV_ID": "job"}
        conf = {"RDZV_CONF": f"read_timeout=10,join_timeout=120,is_host={str(index == 0).lower()}"}
        options = ["--pod", "--nnodes", "2", "--nproc-per-node", "1", "--rejoin-s", str(rejoin_s), "--hang-s", "20"]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "components.launcher.entry", *options, "-m", *command],
                env={
                    **os.environ,
                    **{f"PET_{name}": value for name, value in {**meeting, **conf}.items()},
                    "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(folder)]),
                    "POD": str(index),
                    "EDM2_OWNER": "namespace/job",
                    "EDM2_WORK": str(folder / f"work-{index}"),
                    "OMP_NUM_THREADS": "1",
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines()

    def kill(self) -> None:
        """End all of its processes at once, as the end of a pod does."""
        pids = [self.process.pid]
        for pid in pids:
            children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
            pids.extend(int(child) for child in children)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def code(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)


Start = Callable[..., Pod]


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Start]:
    """Starts the pod of an index, of a job whose pods meet each other. It runs STEPS, unless another command is given."""
    (tmp_path / "steps.py").write_text(STEPS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started: list[Pod] = []

    def start(index: int, command: list[str] | None = None, rejoin_s: float = 60.0) -> Pod:
        started.append(Pod(index, tmp_path, command or ["steps", str(tmp_path)], port, rejoin_s))
        return started[-1]

    yield start
    for pod in started:
        if pod.process.poll() is None:
            pod.kill()


def met(pod: Pod, times: int = 1) -> None:
    """Return when the pod's process has met its peers that often."""
    wait_until(
        lambda: sum("met" in line for line in pod.lines()) >= times or pod.process.poll() is not None, 90, failing=lambda: str(pod.lines())
    )
    assert pod.process.poll() is None, pod.lines()


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_is_lost_before_the_processes_have_met_costs_seconds(pods: Start, tmp_path: Path, index: int) -> None:
    late = tmp_path / f"late-{index}"
    late.touch()
    survivor, lost = pods(1 - index), pods(index)
    wait_until(lambda: not late.exists(), 90, failing=lambda: str(lost.lines()))
    lost.kill()
    for pod in (survivor, pods(index)):
        met(pod)
    assert any("has lost processes of another pod" in line for line in survivor.lines())


@pytest.mark.parametrize("lost", [0, 1])
def test_a_survivor_stays_and_meets_the_successor_of_a_lost_pod(pods: Start, tmp_path: Path, lost: int) -> None:
    both = {index: pods(index) for index in (0, 1)}
    for pod in both.values():
        met(pod)
    both[lost].kill()
    successor, survivor = pods(lost), both[1 - lost]
    met(successor)
    met(survivor, 2)
    (tmp_path / "end").touch()
    assert (survivor.code(), successor.code()) == (0, 0)
    assert any("has lost processes of another pod" in line for line in survivor.lines())


def test_a_survivor_without_a_successor_ends_so_that_it_is_started_again(pods: Start) -> None:
    survivor, lost = pods(0, rejoin_s=4.0), pods(1, rejoin_s=60.0)
    met(lost)
    met(survivor)
    lost.kill()
    killed = time.monotonic()
    assert survivor.code() == 143
    assert time.monotonic() - killed > 4.0
    assert any("has waited 4 s for the job's other pods" in line for line in survivor.lines())


def test_a_pods_own_sigterm_ends_it_with_a_state_and_its_peer_stays(pods: Start, tmp_path: Path) -> None:
    told, peer = pods(0), pods(1)
    met(told)
    met(peer)
    told.process.send_signal(signal.SIGTERM)
    assert told.code() == 143
    assert (tmp_path / "saved-0").exists()
    wait_until(lambda: any("it stays" in line for line in peer.lines()))
    peer.process.send_signal(signal.SIGTERM)  # while it waits for a successor it has nothing to save
    assert peer.code(10) == 143


@pytest.mark.parametrize(("own", "code"), [(1, 1), (144, 143)], ids=["failed", "device"])
def test_an_error_of_its_own_ends_a_pod_at_once_and_its_peer_stays(pods: Start, tmp_path: Path, own: int, code: int) -> None:
    failing, peer = pods(0), pods(1)
    met(failing)
    met(peer)
    (tmp_path / "fail-0").write_text(str(own))
    assert failing.code(30) == code
    wait_until(lambda: any("it stays" in line for line in peer.lines()))
    assert peer.process.poll() is None


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Task]:
    """A store with prepared digits, and a training."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "e.yaml").write_text(EXPERIMENT)
    first, training = plan(load_experiment(folder / "e.yaml"), {"data:digits/G": "builtin:digits"})
    _work(first, open_store(str(folder / "store")), prepare.run)
    return folder / "store", training


def copied(prepared: Path, folder: Path) -> Store:
    folder.mkdir()
    subprocess.run(["cp", "-r", str(prepared / "results"), str(folder)], check=True)
    return open_store(str(folder))


def digests(store: Store, task: Task) -> dict[str, str]:
    """The digests of the snapshot's weights."""
    manifest = load(store, snapshot_ref(trajectory_ref(task), 8))
    assert manifest is not None
    return {name: record.sha256 for name, record in manifest.files.items() if name.startswith("ema")}


def test_a_training_that_loses_a_pod_has_the_bits_of_an_undisturbed_one(pods: Start, prepared: tuple[Path, Task], tmp_path: Path) -> None:
    store, calm = copied(prepared[0], tmp_path / "store"), copied(prepared[0], tmp_path / "calm")
    task = prepared[1]

    def command(where: Store) -> list[str]:
        return ["edm2core.stages.train", json.dumps(task.to_json()), "--store", where.uri]

    first = [pods(index, command(calm)) for index in (0, 1)]
    assert [pod.code(240) for pod in first] == [0, 0]

    survivor, lost = (pods(index, command(store)) for index in (0, 1))
    scratch = Scratch(store, trajectory_ref(task).scratch, 1)
    wait_until(lambda: scratch.about("state-0"), 120, failing=lambda: str(survivor.lines()))
    lost.kill()
    killed = time.time()
    successor = pods(1, command(store))
    assert [pod.code(240) for pod in (survivor, successor)] == [0, 0]

    events = [event for pod in (survivor, successor) for line in pod.lines() if (event := parse(line))]
    again = next(event for event in events if event["kind"] == "restart")
    print(f"from the pod's death to training again: {again['time'] - killed:.1f} s")
    assert again["step"] > 0
    assert digests(store, task) == digests(calm, task)
    assert [record["processes"] for record in rendezvous_of(scratch)] == [2, 2]
    assert {event["rank"] for event in events if event.get("rendezvous") == 2} == {0, 1}
    assert any(line.startswith(("[rank 0, rendezvous 2]", "@edm2")) for line in survivor.lines())
