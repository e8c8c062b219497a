"""Which share of the GPU time that an experiment's pods claim is at work: `python -m tests.cluster.claimed EXPERIMENT`.

It runs the experiment in namespaces of its own, which it removes, on a throw-away cluster whose nodes let pods claim GPUs; behind the
claims no GPU has to be. A GPU is claimed from the moment at which a pod has its place on a node until its container has ended.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from components.launcher.job import prerequisites
from components.launcher.log_store import log_folder, read_record
from edm2core.events import parse
from edm2core.store import open_store
from edm2core.store.runs import list_runs, load_plan
from tests.cluster.lab import Lab, kubectl

CLAIMING = ("snapshot", "sample", "probe", "diagnostics")  # stages whose pods claim a GPU each, as in the profile `gpu`
PARTS = ("container", "program", "work", "end")
LOOK_S = 1.0


@dataclass
class Pod:
    """The times of a pod, in seconds since 1970."""

    stage: str
    gpus: int
    placed: float
    begun: float | None = None
    ended: float | None = None
    starts: float | None = None  # when the stage said that it starts, or had met the others: its modules are imported
    commits: float | None = None  # when it last committed a result

    def parts(self) -> dict[str, float] | None:
        """Seconds of each part of the claimed time; None for a pod of which something is not known."""
        if self.begun is None or self.ended is None or self.starts is None:
            return None
        # A pod's peer may commit in its place.
        commits = min(self.commits or self.ended, self.ended)
        return dict(
            zip(PARTS, (self.begun - self.placed, self.starts - self.begun, commits - self.starts, self.ended - commits), strict=True)
        )


def see(pods: dict[str, Pod], listed: list[dict[str, Any]]) -> None:
    """Note the times of the pods that claim GPUs, as the cluster tells them now."""
    for pod in listed:
        container = pod["spec"]["containers"][0]
        gpus = int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
        placed = next((c for c in pod["status"].get("conditions", []) if (c["type"], c["status"]) == ("PodScheduled", "True")), None)
        if not gpus or placed is None:
            continue
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        stage = pod["metadata"]["labels"].get("edm2/stage", "")
        seen = pods.setdefault(f"{name}/{uid}", Pod(stage, gpus, _seconds(placed["lastTransitionTime"])))
        for status in pod["status"].get("containerStatuses", []):
            state = status.get("state", {})
            if running := state.get("running"):
                seen.begun = _seconds(running["startedAt"])
            if ended := state.get("terminated"):
                seen.begun, seen.ended = _seconds(ended["startedAt"]), _seconds(ended["finishedAt"])


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


def table(pods: list[Pod]) -> str:
    """Claimed GPU seconds for each stage, and what for."""
    lines = [
        "| claimed by | pods | GPU seconds | container starts | program starts, processes meet | at work | ends | share at work |",
        "|" + "---|" * 8,
    ]
    known = [(pod.stage, pod.gpus, parts) for pod in pods if (parts := pod.parts())]
    for stage in [*dict.fromkeys(stage for stage, _, _ in known), *(["all"] if known else [])]:
        found = [(gpus, parts) for own, gpus, parts in known if stage in (own, "all")]
        sums = {part: sum(gpus * parts[part] for gpus, parts in found) for part in PARTS}
        whole = sum(sums.values())
        each = " | ".join(f"{sums[part]:.0f}" for part in PARTS)
        lines.append(f"| {stage} | {len(found)} | {whole:.0f} | {each} | {sums['work'] / whole:.0%} |")
    unknown = len(pods) - len(known)
    return "\n".join([*lines, *([f"Of {unknown} further pods not all times are known."] if unknown else [])])


def run(lab: Lab, experiment: Path, folder: Path) -> list[Pod]:
    """Run the experiment; returns the pods that claimed GPUs."""
    resources = {stage: {"gpus": 1} for stage in CLAIMING}
    profile = lab.profile(store={"uri": "s3://edm2/claimed"}, resources=resources, patience_s=600, job="pytorchjob")
    lab.apply(*prerequisites(profile))
    (folder / "cluster.yaml").write_text(profile.dumps())
    command = [sys.executable, "-m", "pipelines.cli.main", "run", str(experiment), "--cluster", str(folder / "cluster.yaml")]
    pods = dict[str, Pod]()
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as running:
        while running.poll() is None:
            see(pods, json.loads(kubectl("-n", lab.namespace, "get", "pods", "-o", "json"))["items"])
            time.sleep(LOOK_S)
    if running.returncode:
        sys.exit(f"The experiment ended with exit code {running.returncode}.")
    store = open_store(profile.store.uri)
    (record,) = list_runs(store)
    for task in load_plan(store, record)[1]:
        for line in read_record(store, log_folder(record, task)):
            event = parse(line.text)
            pod = next((pod for key, pod in pods.items() if key.startswith(line.pod)), None)
            if event and pod and event["kind"] in ("start", "rendezvous"):  # of a job's processes one alone says "start"
                pod.starts = min(pod.starts or event["time"], event["time"])
            if event and pod and event["kind"] == "commit":
                pod.commits = max(pod.commits or 0.0, event["time"])
    return list(pods.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.claimed", description="Measure what claimed GPU time is for.")
    parser.add_argument("experiment", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edm2-claimed-") as name:
        lab = Lab(Path(name))
        lab.up()
        try:
            print(table(run(lab, options.experiment.resolve(), Path(name))))
        finally:
            lab.delete_jobs()
            lab.down()


if __name__ == "__main__":
    main()
