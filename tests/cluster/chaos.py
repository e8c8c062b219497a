"""Minutes of faults in a throw-away cluster, and what each kind costs: `python -m tests.cluster.chaos --minutes N --seed S --job KIND`.

It makes two namespaces with a store of their own, and removes them. It refuses a cluster that nobody has declared throw-away. The cluster
has one node, whose pods' and Services' addresses can be reached from here; see tests/cluster/lab.py.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from components.launcher.job import cluster_spec
from components.launcher.job_kinds import KINDS as JOBS
from components.launcher.job_kinds import kind_of
from components.launcher.log_store import log_folder, read_record
from edm2core.events import parse
from edm2core.store import open_store
from tests.cluster.chaos_report import KINDS, Fault, Happened, Row, account, as_json, bars, equality_in_words, losses_in_words, schedule
from tests.cluster.lab import JobPods, Lab, difference, kubectl, until

ROOT = Path(__file__).parents[2]
DECLARED = "edm2/throw-away"  # label of the namespace `default` of a cluster that may be disturbed
OPEN = "edm2-chaos/open"  # label of nodes that take the training's pods
FAR = 1_000_000  # the epoch that training goes towards, so that it cannot end before the faults do
AWAY_S, DRAINED_S = 20.0, 10.0
MOST = 1e-3  # the largest difference of weights that counts as equal: that of the tests of single faults
REACH = """
import os, socket
try:
    socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), 3)
    print("reached")
except OSError:
    print("refused")
"""


class Chaos:
    """One training under faults. `api_server` is the process of the API server on this machine; None if it may not be stopped."""

    def __init__(self, lab: Lab, job: str, api_server: int | None) -> None:
        self.lab, self.api_server, self.run = lab, api_server, "chaos"
        self.profile, (self.training,) = lab.fresh([FAR], job=job, node_selector={OPEN: lab.namespace})
        lab.require(self.profile)
        self.store = open_store(self.profile.store.uri)
        self.pods = JobPods(cluster_spec(self.training, self.store.uri, self.profile).name, lab.namespace, kind_of(self.profile))
        self.left_out: dict[str, str] = {}  # kind of fault → why it cannot be made here
        self._steps_per_epoch = 0

    def disturb(self, seed: int, seconds: float, every_s: float) -> tuple[list[Row], list[Happened], float]:
        """Train for so many seconds under faults; returns the rows of the training, the faults that happened, and the end."""
        kubectl("label", "nodes", "--all", "--overwrite", f"{OPEN}={self.lab.namespace}")
        self._launch()
        try:
            began = until(lambda: rows[0].time if (rows := self.rows()) else None, 180, lambda: f"no training: {self.pods.pods()}")
            faults, happened = schedule(seed, self._possible(), seconds, every_s), list[Happened]()
            for fault in faults:
                time.sleep(max(began + fault.at_s - time.time(), 0))
                until(lambda: True if len(self.pods.pod_names(0, 1)) == 2 else None, every_s, lambda: "a pod is missing for too long")
                if self._launcher.poll() is not None:
                    sys.exit("The launcher has ended by itself. Its error is above.")
                happened.append(Happened(fault.kind, time.time(), round(os.getloadavg()[0], 1)))
                print(f"{time.time() - began:6.0f} s: {KINDS[fault.kind]}", flush=True)
                self._do(fault)
            time.sleep(max(began + seconds - time.time(), 0))
            return [row for row in self.rows() if row.time <= began + seconds], happened, began + seconds
        finally:
            self._launcher.kill()
            self._launcher.wait()

    def differs(self, folder: Path) -> tuple[float, int]:
        """Let the training go on undisturbed to a snapshot. By how much its weights differ from those of one that nothing disturbed."""
        rows = self.rows()
        pace = (rows[-1].time - rows[0].time) / max(rows[-1].step - rows[0].step, 1)
        epoch = ceil((rows[-1].step + 20 / pace) / self._steps_per_epoch) + 1
        prepare, training = self.lab.tasks([epoch], **{"training.epochs": FAR})
        follower = self.lab.follow(training, self.profile, self.run)
        manifest = follower.done(600)
        self.lab.delete_jobs()  # stopping it leaves it to the launcher that was killed, which seems alive for a minute
        here = open_store(str(folder / "undisturbed"))
        self.lab.here(prepare, here)
        print(f"The same training, undisturbed and on this machine, to epoch {epoch} …", flush=True)
        return difference(self.store, manifest, here, self.lab.here(training, here, processes=2), folder), epoch

    def rows(self) -> list[Row]:
        """The steps that the training has told, from the log that launchers keep in the store."""
        events = [parse(line.text) for line in read_record(self.store, log_folder(self.run, self.training))]
        told = [event for event in events if event and event["kind"] == "progress"]
        self._steps_per_epoch = told[-1]["steps_per_epoch"] if told else 0
        return [Row(event["time"], event["step"]) for event in told]

    def _possible(self) -> list[str]:
        """The kinds of fault that can be made in this cluster; the others are left out."""
        if self.api_server is None:
            self.left_out["api"] = "No process of the API server on this machine was named."
        if "reached" in self.pods.inside(0, REACH):  # no policy lets a training reach the API server
            self.left_out["policies"] = "This cluster does not enforce them."
        return [kind for kind in KINDS if kind not in self.left_out]

    def _launch(self) -> None:
        arguments = [json.dumps(self.training.to_json()), self.profile.dumps(), self.run]
        self._launcher = subprocess.Popen([sys.executable, "-m", "tests.cluster.follow", *arguments], cwd=ROOT)

    def _do(self, fault: Fault) -> None:
        """Make a fault, and undo what does not end by itself."""
        makers: dict[str, Callable[[int], object]] = {
            "pod": self.pods.kill,
            "both": lambda _: self.pods.kill(0, 1),
            "launcher": self._kill_launcher,
            "stop": lambda pod: self.pods.inside(pod, "[os.kill(p, signal.SIGSTOP) for p in stage()]"),
            "store": self._take_store_away,
            "drain": self._drain,
            "policies": self._turn_policies_on,
            "api": self._take_api_server_away,
        }
        makers[fault.kind](fault.pod)

    def _kill_launcher(self, _: int) -> None:
        self._launcher.kill()
        self._launcher.wait()
        time.sleep(DRAINED_S)
        self._launch()

    def _take_store_away(self, _: int) -> None:
        scale = ("-n", self.lab.minio_namespace, "scale", "deployment/minio")
        kubectl(*scale, "--replicas=0")
        kubectl("-n", self.lab.minio_namespace, "wait", "--for=delete", "pod", "-l", "app=minio", "--timeout=30s")
        time.sleep(AWAY_S)
        kubectl(*scale, "--replicas=1")

    def _drain(self, pod: int) -> None:
        """Close a node to the training alone, and evict its pods there: other pods of the cluster are left in peace."""
        there = {str(each["metadata"]["name"]): str(each["spec"].get("nodeName")) for each in self.pods.pods()}
        node = there[self.pods.pod_names(pod)[0]]
        kubectl("label", "node", node, f"{OPEN}-")
        for name in (name for name in self.pods.pod_names(0, 1) if there.get(name) == node):
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": self.lab.namespace}}
            path = f"/api/v1/namespaces/{self.lab.namespace}/pods/{name}/eviction"
            kubectl("create", "--raw", path, "-f", "-", text=json.dumps(eviction))
        time.sleep(DRAINED_S)
        kubectl("label", "node", node, f"{OPEN}={self.lab.namespace}")

    def _turn_policies_on(self, _: int) -> None:
        kept = kubectl("-n", self.lab.namespace, "get", "networkpolicies", "-o", "json")
        kubectl("-n", self.lab.namespace, "delete", "networkpolicies", "--all")
        time.sleep(DRAINED_S)
        kubectl("create", "-f", "-", text=_as_new(kept))

    def _take_api_server_away(self, _: int) -> None:
        assert self.api_server is not None
        os.kill(self.api_server, signal.SIGSTOP)
        try:
            time.sleep(AWAY_S)
        finally:
            os.kill(self.api_server, signal.SIGCONT)


def _as_new(listed: str) -> str:
    """Objects that the API server has listed, as they can be created again."""
    items = json.loads(listed)["items"]
    for item in items:
        item["metadata"] = {part: item["metadata"][part] for part in ("name", "namespace")}
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos", description="Disturb a training in a throw-away cluster.")
    parser.add_argument("--minutes", type=float, default=60, help="how long to disturb it (default: %(default)g)")
    parser.add_argument("--every", type=float, default=120, metavar="SECONDS", help="one fault in so many seconds (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the faults (default: a random one, which is printed)")
    parser.add_argument("--job", choices=[kind.word for kind in JOBS], default="trainjob", help="kind of job (default: %(default)s)")
    parser.add_argument("--api-server", type=int, metavar="PID", help="process of the API server, if it runs on this machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as JSON too")
    options = parser.parse_args()
    _must_be_declared()
    print(f"seed {options.seed}, {options.minutes:g} minutes, one fault in {options.every:g} s, {options.job}", flush=True)
    with tempfile.TemporaryDirectory(prefix="edm2-chaos-") as name:
        lab = Lab(Path(name))
        lab.up()
        try:
            return _run(lab, options)
        except (AssertionError, pytest.fail.Exception) as error:
            sys.exit(f"The chaos run was broken off: {error}")
        finally:
            kubectl("label", "nodes", "--all", f"{OPEN}-")
            lab.delete_jobs()
            lab.down()


def _run(lab: Lab, options: argparse.Namespace) -> int:
    chaos = Chaos(lab, options.job, options.api_server)
    rows, faults, end = chaos.disturb(options.seed, 60 * options.minutes, options.every)
    found = account(rows, faults, bars(chaos.profile.hang_s), end)
    print(losses_in_words(found, chaos.left_out), flush=True)
    differs, epoch = chaos.differs(lab.folder)
    print(equality_in_words(differs, MOST))
    if options.json:
        about: dict[str, Any] = {name: getattr(options, name) for name in ("seed", "minutes", "every", "job")}
        options.json.write_text(json.dumps(as_json(found, differs, epoch=epoch, left_out=chaos.left_out, **about), indent=1))
    return int(differs > MOST or found.goodput < found.bound)


def _must_be_declared() -> None:
    """End the program unless somebody has said that this cluster may be disturbed."""
    labels = json.loads(kubectl("get", "namespace", "default", "-o", "json"))["metadata"].get("labels", {})
    if labels.get(DECLARED) != "yes":
        server = kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
        sys.exit(
            f"The cluster {server} has not been declared throw-away, so nothing was done. A chaos run kills pods, drains nodes and takes"
            f" the store away. If nobody needs this cluster: kubectl label namespace default {DECLARED}=yes"
        )


if __name__ == "__main__":
    sys.exit(main())
