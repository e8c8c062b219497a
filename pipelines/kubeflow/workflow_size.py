"""Estimates the size of a package's Workflow in Kubeflow. Kubernetes takes no object above a megabyte: the run of a larger one just ends.

A Workflow has a spec and a status. KFP's compiler copies each part of a package into the spec, as JSON within JSON. In the status Argo
keeps nodes, compressed: six for each task, with the patch of its pod, and three for each DAG. The constants come from two measured
Workflows and from 33 that were composed node by node: for those above 250 KB the estimate is 1 % too low to 7 % too high.
"""

import base64
import gzip
import json
from dataclasses import dataclass
from random import Random
from typing import Any

MOST = 2**20  # the most bytes of a Workflow with its status that Argo 4.0 and the API server take
SPARE = 0.05  # the share of MOST that is kept free: names of stores, images and nodes may be longer, and pods may be tried again
FRAME, PART, TASK = 12_000, 1.17, 950  # bytes of a spec: of its templates, for each byte of a package's parts, for each task of a DAG
STATUS = 1.84  # bytes of a status for each byte that is composed here (KFP 2.17.0, Argo 4.0.5)
COPIES, DRIVER_COPIES, DAG_COPIES = 6, 2, 3  # nodes with the patch of a task's pod, nodes with what its driver is given, nodes of a DAG
NODE, TASK_TOKEN, READ = 40, 16, 29  # random bytes that no other node has (ids, times), no other task, no other artifact that is read
Object = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """Bytes of a Workflow when its run ends."""

    spec: int
    status: int

    @property
    def total(self) -> int:
        return self.spec + self.status

    @property
    def fits(self) -> bool:
        return self.total <= MOST * (1 - SPARE)


def size_of(spec: Object, platforms: Object) -> Size:
    """The size of the Workflow of a package that is run with its default parameters. KFP's compiler writes both documents."""
    components = {**spec["components"], "root": spec["root"]}
    executors = spec["deploymentSpec"]["executors"]
    pods = platforms.get("platforms", {}).get("kubernetes", {}).get("deploymentSpec", {}).get("executors", {})
    random, nodes = Random(0), list[Any]()  # noqa: S311

    def add(text: Any, copies: int) -> None:
        nodes.extend([random.randbytes(NODE).hex(), text] for _ in range(copies))

    def add_dag(dag: str) -> None:
        """Add the nodes of a DAG's tasks, and of those inside of them."""
        for _, task in sorted(components[dag]["dag"]["tasks"].items()):
            name = task["componentRef"]["name"]
            component = components[name]
            if "dag" in component:
                add([component, task], DAG_COPIES)
                add_dag(name)
                continue
            label = component["executorLabel"]
            given = [component, task, executors[label], pods.get(label)]
            reads = len(task.get("inputs", {}).get("artifacts", {}))
            patch = _json([*given, random.randbytes(TASK_TOKEN + READ * reads).hex()])
            add([patch, given], DRIVER_COPIES)
            add(patch, COPIES - DRIVER_COPIES)

    add_dag("root")
    random.shuffle(nodes)  # Argo orders them by their ids
    status = base64.b64encode(gzip.compress(_json(nodes).encode(), 6, mtime=0))
    tasks = [task for component in components.values() for task in component.get("dag", {}).get("tasks", {}).values()]
    parts = [*components.values(), *executors.values(), *pods.values(), *tasks]
    copied = sum(len(_json(_json(part)).encode()) for part in parts)
    return Size(round(FRAME + PART * copied + TASK * len(tasks)), round(STATUS * len(status)))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
