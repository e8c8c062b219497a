"""The command of Kubeflow's tasks: `python3 -m components.kubeflow COMPONENT EXECUTOR_INPUT [NAME=VALUE]…` calls the component's function.

It replaces KFP's own executor, and spares each pod the second that importing kfp takes. The command is one line. KFP's own would contain
the function's source, and Kubeflow keeps six copies of a task's command in an object of at most a megabyte.
"""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from edm2core.plan.stages import STAGES

MOUNTS = {"gs": "/gcs", "minio": "/minio", "s3": "/s3"}  # scheme of an address → folder whose files KFP's launcher uploads there


@dataclass
class Artifact:
    """An output of a task: a file, which KFP's launcher uploads when the task has ended, and metadata, which Kubeflow shows."""

    name: str
    uri: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        scheme, remote, rest = self.uri.partition("://")
        return f"{MOUNTS[scheme]}/{rest}" if remote else self.uri

    def log_metric(self, metric: str, value: float) -> None:
        self.metadata[metric] = value

    def log_confusion_matrix(self, categories: Sequence[str], matrix: Sequence[Sequence[int]]) -> None:
        """Rows are true classes, columns predicted ones."""
        specs = [{"displayName": category} for category in categories]
        self.metadata["confusionMatrix"] = {"annotationSpecs": specs, "rows": [{"row": list(row)} for row in matrix]}


def component(name: str) -> Callable[..., dict[str, str] | None]:
    """The function of a component: `component` in components/<name>/ for a stage, in components/<name>/component.py for the others."""
    module = import_module(f"components.{name}" if name in STAGES else f"components.{name}.component")
    function: Callable[..., dict[str, str] | None] = module.component
    return function


def perform(name: str, executor_input: str, *more: str) -> None:
    """Call the component's function with the parameters and outputs of an ExecutorInput (as JSON), and write what it returns.

    `more` are further parameters, as NAME=VALUE. A word without "=" has no meaning: it makes a command different from another.

    An output may be named after its content, such as FID, and not after a parameter. Such outputs go in their order to the parameters that
    have no value yet.
    """
    asked = json.loads(executor_input)
    wanted = {output: entry["artifacts"][0] for output, entry in asked["outputs"].get("artifacts", {}).items()}
    outputs = {output: Artifact(artifact.get("name", output), artifact["uri"]) for output, artifact in wanted.items()}
    function = component(name)
    given = dict(asked.get("inputs", {}).get("parameterValues", {}))
    given |= dict(argument.split("=", 1) for argument in more if "=" in argument)
    for artifact in outputs.values():
        Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    outputs.pop("executor-logs", None)  # KFP's launcher writes them
    parameters = inspect.signature(function).parameters
    known = {output: artifact for output, artifact in outputs.items() if output in parameters}
    unnamed = [parameter for parameter in parameters if parameter not in {*given, *known}]
    others = [artifact for output, artifact in outputs.items() if output not in known]
    values = function(**given, **known, **dict(zip(unnamed, others, strict=True)))
    artifacts = {output: {"artifacts": [asdict(artifact)]} for output, artifact in outputs.items()}
    record = {"parameterValues": values or {}, "artifacts": artifacts}
    file = Path(asked["outputs"]["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    perform(*sys.argv[1:])
