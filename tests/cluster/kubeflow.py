"""Runs a compiled package's tasks as Kubeflow Pipelines would: each in a pod of its own, with an executor input as KFP 2.17 writes it.

It stands in for KFP's driver, its launcher and Argo, of which a cluster with only the training operator has none.
"""

import base64
import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.cluster.lab import kubectl, until

Object = dict[str, Any]
OUTPUT = "/tmp/kfp_outputs/output_metadata.json"
ROOT = "minio://mlpipeline/v2/artifacts"  # at /minio/mlpipeline/… in a pod, on a disk that KFP mounts there
# What KFP's launcher does around a body: folders for its outputs before, and afterwards all that was written, here by printing it. When all
# in the pod are signalled, Argo's own process is left, and ends the pod .05 to .65 s later (measured).
LAUNCHER = """
mkdir -p /tmp/kfp_outputs; for file in $FILES; do mkdir -p "$(dirname "$file")"; done
"$@"; code=$?
[ $code -le 128 ] || sleep 0.3
for file in $FILES; do [ -e "$file" ] && echo "@@file $file $(base64 -w0 < "$file")"; done
exit $code
"""


class Ended(NamedTuple):
    """A task that has ended: its exit code, what it printed, and what it published, by the artifact's name."""

    code: int
    text: str
    artifacts: dict[str, Object]
    files: dict[str, bytes]
    parameters: dict[str, str]


class Kubeflow:
    """One run of a package in a namespace, whose pods belong to `owner`."""

    def __init__(self, package: Path, namespace: str, account: str, owner: Object | None = None) -> None:
        self.spec, platform = yaml.safe_load_all(package.read_text())
        self.platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self.namespace, self.account, self.owner = namespace, account, owner
        self.parameters = {name: value["defaultValue"] for name, value in self.spec["root"]["inputDefinitions"]["parameters"].items()}
        self.ended: dict[str, Ended] = {}  # by the task's display name

    def run(self) -> None:
        """Do every task after what it depends on; the exit task last."""
        self._dag(self.spec["root"]["dag"], self.parameters, {})

    def begin(self) -> None:
        """Do the first task alone, so that others can be started."""
        task = self.spec["root"]["dag"]["tasks"]["record"]
        self.plan = self._task(task, self._parameters(task, self.parameters, {}), {})[1]["plan"]
        self.first = self.ended[task["taskInfo"]["name"]]

    def pod_of(self, title: str, of: str = "") -> str:
        """Start only the task of that display name, which needs no artifact to be there, after `begin`; its pod's name."""
        for component in self.spec["components"].values():
            for task in component.get("dag", {}).get("tasks", {}).values():
                if task["taskInfo"]["name"] == title:
                    return self._start(task, {"task": title, "of": of, "plan": self.plan}, {})[0]
        raise KeyError(title)

    def _dag(self, dag: Object, parameters: dict[str, Any], artifacts: dict[str, Object]) -> None:
        done: dict[str, tuple[dict[str, Object], dict[str, str]]] = {}
        skipped: set[str] = set()
        while waiting := [name for name in dag["tasks"] if name not in {*done, *skipped}]:
            name = next(name for name in waiting if set(dag["tasks"][name].get("dependentTasks", ())) <= {*done, *skipped})
            task = dag["tasks"][name]
            given = self._parameters(task, parameters, done)
            condition = re.fullmatch(r"inputs\.parameter_values\['(.+)'\] == '(.+)'", task.get("triggerPolicy", {}).get("condition", ""))
            if set(task.get("dependentTasks", ())) & skipped or (condition and given[condition[1]] != condition[2]):
                skipped.add(name)
                continue
            read = {key: _artifact(source, artifacts, done) for key, source in task.get("inputs", {}).get("artifacts", {}).items()}
            done[name] = self._task(task, given, read)

    def _task(self, task: Object, parameters: dict[str, Any], artifacts: dict[str, Object]) -> tuple[dict[str, Object], dict[str, str]]:
        inside = self.spec["components"][task["componentRef"]["name"]].get("dag")
        if inside:
            self._dag(inside, parameters, artifacts)
            return {}, {}
        title = task["taskInfo"]["name"]
        name, files = self._start(task, parameters, artifacts)
        until(lambda: True if self.phase(name) in ("Succeeded", "Failed") else None, 300, lambda: f"{title}: {self.log(name)}")
        self.ended[title] = ended = self._end(name, files)
        assert ended.code == 0, f"{title}: {ended.text}"
        return ended.artifacts, ended.parameters

    def _start(self, task: Object, parameters: dict[str, Any], artifacts: dict[str, Object]) -> tuple[str, dict[str, str]]:
        """A pod for the task; its name, and each of its outputs' file."""
        component = self.spec["components"][task["componentRef"]["name"]]
        name = f"kfp-{secrets.token_hex(4)}"
        outputs = {
            key: {"name": key, "type": kind["artifactType"], "uri": f"{ROOT}/{name}/{key}", "metadata": {}}
            for key, kind in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        files = {key: value["uri"].replace("minio://", "/minio/") for key, value in outputs.items()}
        executor_input = {
            "inputs": {
                "parameterValues": parameters,
                "artifacts": {key: {"artifacts": [value]} for key, value in artifacts.items()},
            },
            "outputs": {"artifacts": {key: {"artifacts": [value]} for key, value in outputs.items()}, "outputFile": OUTPUT},
        }
        kubectl("create", "-f", "-", text=json.dumps(self._pod(name, component["executorLabel"], executor_input, list(files.values()))))
        return name, files

    def _pod(self, name: str, label: str, executor_input: Object, files: list[str]) -> Object:
        container, platform = self.spec["deploymentSpec"]["executors"][label]["container"], self.platform[label]
        command = [*container["command"], *container["args"]]
        identity = {"KFP_POD_NAME": "metadata.name", "KFP_POD_UID": "metadata.uid"}
        env = [*container.get("env", []), {"name": "FILES", "value": " ".join([OUTPUT, *files])}]
        env += [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in identity.items()]
        for secret in platform.get("secretAsEnv", []):
            env += [
                {"name": pair["envVar"], "valueFrom": {"secretKeyRef": {"name": secret["secretName"], "key": pair["secretKey"]}}}
                for pair in secret["keyToEnv"]
            ]
        amounts = container["resources"]
        user = {key: int(value) if str(value).isdigit() else value for key, value in platform["securityContext"].items()}
        main = {
            "name": "main",
            "image": container["image"],
            "command": ["sh", "-c", LAUNCHER, "launcher"],
            "args": [json.dumps(executor_input) if part == "{{$}}" else part for part in command],
            "env": env,
            "resources": {
                "requests": {"cpu": amounts["resourceCpuRequest"], "memory": amounts["resourceMemoryRequest"]},
                "limits": {"cpu": amounts["resourceCpuLimit"], "memory": amounts["resourceMemoryLimit"]},
            },
            "securityContext": {
                **user,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": "minio-scratch", "mountPath": "/minio"}],
        }
        metadata = {"name": name, "namespace": self.namespace, "labels": platform["podMetadata"]["labels"]}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | ({"ownerReferences": [self.owner]} if self.owner else {}),
            "spec": {
                "serviceAccountName": self.account,
                "restartPolicy": "Never",
                "containers": [main],
                "volumes": [{"name": "minio-scratch", "emptyDir": {}}],
            },
        }

    def _parameters(self, task: Object, given: dict[str, Any], done: Object) -> dict[str, Any]:
        """The task's parameters: constants, what others gave, or the values of its surrounding DAG."""

        def value(source: Object) -> Any:
            if "runtimeValue" in source:
                return source["runtimeValue"]["constant"]
            if output := source.get("taskOutputParameter"):
                return done[output["producerTask"]][1][output["outputParameterKey"]]
            return given[source["componentInputParameter"]]

        return {key: value(source) for key, source in task.get("inputs", {}).get("parameters", {}).items()}

    def phase(self, pod: str) -> str:
        return kubectl("-n", self.namespace, "get", "pod", pod, "-o", "jsonpath={.status.phase}")

    def log(self, pod: str) -> str:
        done = subprocess.run(["kubectl", "-n", self.namespace, "logs", pod], capture_output=True, text=True)
        return done.stdout + done.stderr

    def _end(self, pod: str, files: dict[str, str]) -> Ended:
        found = json.loads(kubectl("-n", self.namespace, "get", "pod", pod, "-o", "json"))
        code = found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
        lines = self.log(pod).splitlines()
        marked = [line.split(" ", 2)[1:] for line in lines if line.startswith("@@file ")]
        written = {path: base64.b64decode(data) for path, data in marked}
        record = json.loads(written[OUTPUT]) if OUTPUT in written else {}
        return Ended(
            int(code),
            "\n".join(line for line in lines if not line.startswith("@@file ")),
            {key: value["artifacts"][0] for key, value in record.get("artifacts", {}).items()},
            {key: written[path] for key, path in files.items() if path in written},
            record.get("parameterValues", {}),
        )


def _artifact(source: Object, given: dict[str, Object], done: dict[str, tuple[dict[str, Object], dict[str, str]]]) -> Object:
    if "componentInputArtifact" in source:
        return given[source["componentInputArtifact"]]
    output = source["taskOutputArtifact"]
    made = done[output["producerTask"]][0][output["outputArtifactKey"]]
    numbers = {key: float(value) for key, value in made["metadata"].items() if isinstance(value, int)}
    return {"name": "17", "uri": made["uri"], "metadata": made["metadata"] | numbers}  # as the driver has it from its database: untyped
