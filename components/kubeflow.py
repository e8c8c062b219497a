"""The command of Kubeflow's tasks: `python3 -m components.kubeflow COMPONENT EXECUTOR_INPUT [NAME=VALUE]…` calls the component's function.

It does for them what KFP's own executor does, without importing kfp, which takes a pod a second. And it is one line: KFP's has the
function's source in it, of which Kubeflow keeps six copies for each task, in an object that may take a megabyte.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

MOUNTS = {"gs": "/gcs", "minio": "/minio", "s3": "/s3"}  # where KFP's launcher takes files from that it uploads


@dataclass
class Artifact:
    """An output: a file, which Kubeflow's launcher uploads when the task has ended, and what Kubeflow shows of it."""

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
    """The function of a component, in components/<name>/component.py."""
    function: Callable[..., dict[str, str] | None] = getattr(import_module(f"components.{name}.component"), name)
    return function


def perform(name: str, executor_input: str, *more: str) -> None:
    """Call the component's function with the parameters and the outputs of an ExecutorInput (as JSON), and write what it gives.

    `more` are parameters that Kubeflow need not know, as NAME=VALUE; what is not of that form only tells commands from each other.

    An output under another name than the function's is that of the function's parameter for which there is none: artifacts are called
    after what is in them, such as FID.
    """
    asked = json.loads(executor_input)
    outputs = {
        output: Artifact(found["artifacts"][0].get("name", output), found["artifacts"][0]["uri"])
        for output, found in asked["outputs"].get("artifacts", {}).items()
    }
    function = component(name)
    given = dict(asked.get("inputs", {}).get("parameterValues", {}))
    given |= dict(argument.split("=", 1) for argument in more if "=" in argument)
    known = {output: artifact for output, artifact in outputs.items() if output in inspect.signature(function).parameters}
    unnamed = [parameter for parameter in inspect.signature(function).parameters if parameter not in {*given, *known}]
    others = [artifact for output, artifact in outputs.items() if output not in known and output != "executor-logs"]
    for artifact in outputs.values():
        Path(artifact.path).parent.mkdir(parents=True, exist_ok=True)
    values = function(**given, **known, **dict(zip(unnamed, others, strict=True)))
    record = {
        "parameterValues": values or {},
        "artifacts": {
            output: {"artifacts": [{"name": artifact.name, "uri": artifact.uri, "metadata": artifact.metadata}]}
            for output, artifact in outputs.items()
            if output != "executor-logs"
        },
    }
    file = Path(asked["outputs"]["outputFile"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    perform(*sys.argv[1:])
