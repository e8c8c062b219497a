"""Estimates the size of a package's Workflow in Kubeflow. Kubernetes takes no object above a megabyte: the run of a larger one just ends.

The Workflow is composed as Kubeflow's compiler does it (backend/src/v2/compiler/argocompiler of KFP 2.17). Its nodes are composed as
Kubeflow's driver and Argo have written them when the run ends. The nodes of each task hold the patch of the task's pod six times. SPEC and
STATUS correct the result by the sizes of two real Workflows.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

MOST = 2**20  # the most bytes of a Workflow with its status that Argo 4.0 and the API server take
SPEC, STATUS = 1.02, 1.25  # measured size over composed size: the spec of 229 tasks, the status of 34 (KFP 2.17.0, Argo 4.0.5)
SPARE = 0.05  # the share of MOST that is kept free: names of stores, images and nodes may be longer, and pods may be tried again
FRAME = 11_500  # bytes of a Workflow besides its DAGs and components: templates of drivers and launchers
RUN = "0e9cfeb2-2c9c-4d9c-8c5c-2b8e5a4b7b1f"  # an id like Kubeflow's
NODE = {"hostNodeName": "worker-node-1", "resourcesDuration": {"cpu": 3, "memory": 41}, "progress": "1/1", "phase": "Succeeded"}
SESSION = (
    '{"Provider":"minio","Params":{"accessKeyKey":"accesskey","disableSSL":"true","endpoint":"seaweedfs.kubeflow:9000","fromEnv":"false",'
    '"region":"minio","secretKeyKey":"secretkey","secretName":"mlpipeline-minio-artifact"}}'
)
LAUNCHER = (
    *("--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)", "--mlmd_server_address", "$(METADATA_GRPC_SERVICE_HOST)"),
    *("--mlmd_server_port", "$(METADATA_GRPC_SERVICE_PORT)", "--publish_logs", "true", "--"),
)
Object = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """Bytes of a Workflow when its run ends, and how many tasks it has."""

    spec: int
    status: int
    tasks: int

    @property
    def total(self) -> int:
        return self.spec + self.status

    @property
    def fits(self) -> bool:
        return self.total <= MOST * (1 - SPARE)


def size_of(spec: Object, platforms: Object) -> Size:
    """The size of the Workflow of a package that is run with its default parameters. KFP's compiler writes both documents."""
    in_order = (json.loads(_json(document)) for document in (spec, platforms))  # KFP's order differs from process to process
    return _Workflow(*in_order).size()


class _Workflow:
    def __init__(self, spec: Object, platforms: Object) -> None:
        self.spec = spec
        self.components: dict[str, Object] = {**spec["components"], "root": spec["root"]}
        self.executors: dict[str, Object] = spec["deploymentSpec"]["executors"]
        platform = platforms.get("platforms", {}).get("kubernetes", {})
        self.kubernetes: dict[str, Object] = platform.get("deploymentSpec", {}).get("executors", {})
        self.name = f"{spec['pipelineInfo']['name']}-x7k2p"
        self.random = Random(0)  # noqa: S311
        self.nodes: dict[str, Object] = {}
        self.tasks = 0

    def size(self) -> Size:
        parameters: dict[str, str] = {}
        templates = []
        for name, component in self.components.items():
            parameters[f"components-{self._hash(name)}"] = _json(component)
            if container := self._container(component):
                parameters[f"implementations-{self._hash(name)}"] = _json(container)
                if settings := self.kubernetes.get(component["executorLabel"]):
                    parameters[f"kubernetes-{name}"] = _json(settings)
            else:
                tasks = [argos for task, values in component["dag"]["tasks"].items() for argos in self._dag_tasks(task, values)]
                templates.append({"name": name, "inputs": _parameters({"parent-dag-id": None}), "dag": {"tasks": tasks}})
        defaults = {name: str(value.get("defaultValue", "")) for name, value in self.spec["root"]["inputDefinitions"]["parameters"].items()}
        arguments = _json({"arguments": _parameters(parameters), "templates": templates, "runtime-config": _json(defaults)})
        self._begin(".root", {"component": _json(self.spec["root"]), "runtime-config": _json(defaults)})
        self._run("", "root", defaults, {})
        status = base64.b64encode(gzip.compress(_json(self.nodes).encode(), 6, mtime=0))
        return Size(round(SPEC * (FRAME + len(arguments.encode()))), round(STATUS * len(status)), self.tasks)

    def _hash(self, name: str) -> str:
        container = self._container(self.components[name])
        return hashlib.sha256(_json(container).encode()).hexdigest() if container else name

    def _container(self, component: Object) -> Object | None:
        return self.executors[component["executorLabel"]]["container"] if "executorLabel" in component else None

    def _dag_tasks(self, name: str, task: Object) -> Iterable[Object]:
        """A task of the package as two of Argo's: its driver, and itself."""
        component = task["componentRef"]["name"]
        given = {
            "component": f"{{{{workflow.parameters.components-{self._hash(component)}}}}}",
            "task": _json(_task(task)),
            "task-name": name,
            "parent-dag-id": "{{inputs.parameters.parent-dag-id}}",
        }
        labels: dict[str, str] = {}
        if self._container(self.components[component]):
            labels = self._labels(self.components[component])
            given["container"] = f"{{{{workflow.parameters.implementations-{self._hash(component)}}}}}"
            if self.components[component]["executorLabel"] in self.kubernetes:
                given["kubernetes-config"] = f"{{{{workflow.parameters.kubernetes-{component}}}}}"
            driver, template = "system-container-driver", f"metadata-0-{len(labels) // 2}-system-container-executor"
            outputs = {"pod-spec-patch": "pod-spec-patch", "cached-decision": "cached-decision"}
        else:
            driver, template = "system-dag-driver", component
            outputs = {"parent-dag-id": "execution-id", "condition": "condition"}
        taken = {to: f"{{{{tasks.{name}-driver.outputs.parameters.{output}}}}}" for to, output in outputs.items()} | labels
        after = " && ".join(f"{other}.Succeeded" for other in _waits(task))
        yield {"name": f"{name}-driver", "template": driver, "arguments": _parameters(given), "depends": after}
        yield {"name": name, "template": template, "arguments": _parameters(taken), "depends": f"{name}-driver.Succeeded"}

    def _labels(self, component: Object) -> dict[str, str]:
        """The labels of a component's pods, as parameters of Argo's."""
        labels = self.kubernetes.get(component["executorLabel"], {}).get("podMetadata", {}).get("labels", {})
        parameters: dict[str, str] = {}
        for number, (key, value) in enumerate(sorted(labels.items()), 1):
            parameters |= {f"pod-metadata-label-key-{number}": key, f"pod-metadata-label-val-{number}": value}
        return parameters

    def _run(self, path: str, name: str, parameters: Mapping[str, str], artifacts: Mapping[str, Object]) -> None:
        """Add the nodes of a DAG and of all that is in it."""
        made: dict[str, dict[str, Object]] = {}
        tasks: dict[str, Object] = self.components[name]["dag"]["tasks"]
        for task_name in _in_order(tasks):
            task = tasks[task_name]
            component = self.components[task["componentRef"]["name"]]
            given = {key: self._value(source, parameters) for key, source in task.get("inputs", {}).get("parameters", {}).items()}
            read = {
                key: artifacts[source["componentInputArtifact"]]
                if "componentInputArtifact" in source
                else made[source["taskOutputArtifact"]["producerTask"]][source["taskOutputArtifact"]["outputArtifactKey"]]
                for key, source in task.get("inputs", {}).get("artifacts", {}).items()
            }
            where = f"{path}.{task_name}"
            inputs = {"component": _json(component), "task": _json(_task(task)), "task-name": task_name, "parent-dag-id": "1234"}
            container = self._container(component)
            if container is None:
                self._begin(where, inputs)
                self._node("DAG", where, {"parent-dag-id": "1234", "condition": "true"})
                self._run(where, task["componentRef"]["name"], given, read)
                made[task_name] = {}
                continue
            self.tasks += 1
            patch, made[task_name] = self._patch(task_name, component, given, read)
            settings = self.kubernetes.get(component["executorLabel"], {})
            inputs |= {"container": _json(container), "kubernetes-config": _json(settings), "iteration-index": "-1"}
            self._pod(f"{where}-driver", inputs, {"pod-spec-patch": patch, "cached-decision": "false", "condition": "true"})
            labels = self._labels(component)
            for kind in ("Retry", "DAG"):
                self._node(kind, where, {"pod-spec-patch": patch, "cached-decision": "false", **labels})
            self._pod(f"{where}.executor", {"pod-spec-patch": patch, **labels}, {})

    def _begin(self, where: str, inputs: Mapping[str, str]) -> None:
        """Add the nodes of the driver of a DAG."""
        outputs = {"execution-id": "1234", "iteration-count": "0", "condition": "true"}
        self._pod(f"{where}-driver", {**inputs, "iteration-index": "-1", "driver-type": "DAG"}, outputs)

    def _pod(self, where: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        for kind in ("Retry", "Pod"):  # each pod has a node around it, since a stock installation tries every pod again
            self._node(kind, where, inputs, outputs)

    def _node(self, kind: str, where: str, inputs: Mapping[str, str], outputs: Mapping[str, str] | None = None) -> None:
        id, minute, second = self._id(), self.random.randrange(60), self.random.randrange(60)
        results: Object = {} if outputs is None else _parameters(outputs)
        if kind == "Pod":
            key = f"private-artifacts/kubeflow/{self.name}/2026/11/25/{id}/main.log"
            results |= {"artifacts": [{"name": "main-logs", "s3": {"key": key}}], "exitCode": "0"}
        self.nodes[id] = {
            **NODE,
            "id": id,
            "name": f"{self.name}{where}",
            "displayName": where.rpartition(".")[2],
            "type": kind,
            "templateName": "system-container-impl",
            "templateScope": f"local/{self.name}",
            "boundaryID": self._id(),
            "children": [self._id()],
            "outboundNodes": [self._id()],
            "startedAt": f"2026-11-25T10:{minute:02}:{second:02}Z",
            "finishedAt": f"2026-11-25T10:{second:02}:{minute:02}Z",
            "inputs": _parameters(inputs),
            "outputs": results,
        }

    def _id(self) -> str:
        return f"{self.name}-{self.random.randrange(10**8, 2**32)}"

    def _value(self, source: Object, parameters: Mapping[str, str]) -> str:
        if "componentInputParameter" in source:
            return parameters[source["componentInputParameter"]]
        if "taskOutputParameter" in source:  # the address of the plan, from the first task
            return f"{parameters['store']}/runs/{parameters['run']}/kubeflow/{'0' * 20}.json"
        return str(source["runtimeValue"]["constant"])

    def _patch(self, name: str, component: Object, given: Mapping[str, str], read: Mapping[str, Object]) -> tuple[str, dict[str, Object]]:
        """The patch of a task's pod, as its driver writes it, and the artifacts that the task makes."""
        container, settings = self._container(component) or {}, self.kubernetes.get(component["executorLabel"], {})
        token = f"{self.random.getrandbits(128):032x}"
        folder = f"minio://mlpipeline/v2/artifacts/{self.spec['pipelineInfo']['name']}/{RUN}/{name}/{token}"
        defined = component.get("outputDefinitions", {})
        types = {key: value["artifactType"] for key, value in defined.get("artifacts", {}).items()}
        types["executor-logs"] = {"schemaTitle": "system.Artifact"}
        made = {key: {"name": key, "type": kind, "uri": f"{folder}/{key}"} for key, kind in types.items()}
        asked = {
            "inputs": {"parameterValues": given, "artifacts": {key: {"artifacts": [value]} for key, value in read.items()}},
            "outputs": {
                "artifacts": {key: {"artifacts": [value]} for key, value in made.items()},
                "parameters": {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in defined.get("parameters", {})},  # noqa: S108
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",  # noqa: S108
            },
        }
        command = ["/kfp-launcher/launch", "--pipeline_name", self.spec["pipelineInfo"]["name"], "--run_id", RUN, "--execution_id", "1234"]
        command += ["--executor_input", _json(asked), "--component_spec", _json(component), *LAUNCHER]
        secrets = [
            {"name": pair["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": pair["secretKey"]}}}
            for secret in settings.get("secretAsEnv", ())
            for pair in secret["keyToEnv"]
        ]
        main = {
            **{key: value for key, value in container.items() if key in ("image", "resources")},
            **{"name": "main", "command": command, "args": [*container.get("command", ()), *container.get("args", ())]},
            "env": [*container.get("env", ()), *secrets],
            "securityContext": settings.get("securityContext", {}),
        }
        others = {key: value for key, value in settings.items() if key not in ("secretAsEnv", "securityContext", "podMetadata")}
        del made["executor-logs"]  # no task reads them
        return _json({"containers": [main], **others}), {key: self._published(value) for key, value in made.items()}

    def _published(self, artifact: Object) -> Object:
        """An artifact as it is described to the tasks that read it."""
        key, attempt = f"{self.random.getrandbits(80):020x}", f"{self.random.getrandbits(24):06x}"
        where = f"s3://mlpipeline/edm2/results/snapshot/{key}/20261125T100000-{attempt}"
        metadata = {"display_name": artifact["name"], "location": where, "recipe": "cifar10/E", "seed": 0, "epoch": 100}
        return {**artifact, "metadata": {**metadata, "store_session_info": SESSION}}


def _in_order(tasks: Mapping[str, Object]) -> list[str]:
    """The names of a DAG's tasks, each after the tasks that it waits for."""
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        for other in _waits(tasks[name]):
            add(other)
        ordered.setdefault(name)

    for name in tasks:
        if name not in ordered:
            add(name)
    return list(ordered)


def _waits(task: Object) -> list[str]:
    """The tasks that a task waits for: it reads their outputs, or was told to wait."""
    sources = [source for kind in ("parameters", "artifacts") for source in task.get("inputs", {}).get(kind, {}).values()]
    made = [source[key]["producerTask"] for source in sources for key in ("taskOutputParameter", "taskOutputArtifact") if key in source]
    return list(dict.fromkeys([*task.get("dependentTasks", ()), *made]))


def _task(task: Object) -> Object:
    """A task as Kubeflow's driver is given it."""
    return {**task, "dependentTasks": _waits(task)}


def _parameters(values: Mapping[str, str | None]) -> Object:
    return {"parameters": [{"name": name} if value is None else {"name": name, "value": value} for name, value in values.items()]}


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
