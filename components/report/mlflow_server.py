"""Logs trainings at an MLflow server: an experiment as an MLflow experiment, a training as a run, every point once."""

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from edm2core.addresses import redacted, shown
from edm2core.errors import EdmError, InputError
from edm2core.http_answers import page
from edm2core.report.tracked import Tracked

URI = "MLFLOW_TRACKING_URI"
IDENTITY, REFERENCES = "edm2.identity", "edm2.references"  # tags
BOUNDS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Variables of MLflow's client, unless the user has set them. With its defaults it would wait for minutes."""
MOST_POINTS, MOST_WORDS = 1000, 100  # metric values, and parameters or tags, in one request
LONGEST = 6000  # characters of a parameter's or tag's value
LONGEST_DIGEST = 36


@dataclass
class _Known:
    """What the server already has of a training."""

    run: str
    status: str
    parameters: set[str]
    tags: dict[str, str]
    data: set[str]  # digests
    points: dict[str, set[int]]  # metric → epochs


class MlflowServer:
    """The server that MLFLOW_TRACKING_URI names. MLflow's client takes credentials from its own environment variables."""

    def __init__(self, uri: str) -> None:
        """Sends no request. Raises InputError if MLflow's client is not installed or cannot use the URI."""
        if importlib.util.find_spec("mlflow") is None:
            raise InputError(
                f"{URI} is set, and MLflow's client is not installed.",
                where=f"{URI}={shown(uri)}",
                do_next="Install it (`.venv/bin/pip install mlflow-skinny`; it is the extra `mlflow`), or unset the variable.",
            )
        for name, value in BOUNDS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient  # takes a second, and need not be installed

        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of every retry; an error that remains is raised
        self.uri = shown(uri)
        self._known: dict[str, _Known] = {}
        try:
            self._client = MlflowClient(uri)
        except Exception as error:  # MLflow's kinds of store raise what they like
            raise InputError(
                f"MLflow cannot use this address: {_words(error)}",
                where=f"{URI}={self.uri}",
                do_next="Set it to a server's, such as http://localhost:5000, or unset it.",
            ) from error

    @classmethod
    def named(cls) -> "MlflowServer | None":
        """The server that the environment names, or None."""
        uri = os.environ.get(URI, "").strip()
        return cls(uri) if uri else None

    def log(self, experiment: str, trainings: Iterable[Tracked], *, ended: bool) -> None:
        """Send the server what it lacks of the trainings. Raises EdmError if the server does not take it.

        `ended` says that nobody works on them any more, so a training with undone tasks is no longer running.
        """
        identity = ""
        try:
            where = self._experiment(experiment)
            for training in trainings:
                identity = training.identity
                self._log(self._known.setdefault(identity, self._known.get(identity) or self._find(where, training)), training, ended)
        except Exception as error:
            self._known.pop(identity, None)  # ask again next time, since the server may have taken a part of a failed request
            raise EdmError(
                f"MLflow at {self.uri} was not told everything: {_words(error)}",
                where=self.uri,
                do_next="What is missing is logged when the same command runs again.",
                permanent=False,
            ) from error

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # somebody else has just made it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if not found.experiment_id:
            raise EdmError("what answers is not its API: it names no experiment.")
        if found.lifecycle_stage == "deleted":
            raise EdmError(f"its experiment {name} is deleted; restore it with `mlflow experiments restore -x {found.experiment_id}`")
        return str(found.experiment_id)

    def _find(self, experiment: str, training: Tracked) -> _Known:
        """The training's run, which is created if there is none. If two processes create one at once, the older one stays."""
        asked = f"tags.`{IDENTITY}` = '{training.identity}'"
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self._client.search_runs([experiment], asked, order_by=order)
        if not found:
            made = self._client.create_run(experiment, tags={IDENTITY: training.identity}, run_name=training.name)
            found = self._client.search_runs([experiment], asked, order_by=order) or [made]
            if found[0].info.run_id != made.info.run_id:
                self._client.delete_run(made.info.run_id)
        info, data = found[0].info, found[0].data
        datasets = {each.dataset.digest for each in found[0].inputs.dataset_inputs}
        points = {name: {point.step for point in self._client.get_metric_history(info.run_id, name)} for name in data.metrics}
        return _Known(info.run_id, info.status, set(data.params), dict(data.tags), datasets, points)

    def _log(self, known: _Known, training: Tracked, ended: bool) -> None:
        from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

        parameters = {n: v[:LONGEST] for n, v in training.parameters.items() if n not in known.parameters}
        self._send(known, MOST_WORDS, params=[Param(name, value) for name, value in parameters.items()])
        known.parameters |= parameters.keys()
        tags = {name: value[:LONGEST] for name, value in training.tags.items()}
        tags = {name: value for name, value in tags.items() if known.tags.get(name) != value}
        self._send(known, MOST_WORDS, tags=[RunTag(name, value) for name, value in tags.items()])
        known.tags |= tags
        if (data := training.data) and data.digest[:LONGEST_DIGEST] not in known.data:
            dataset = Dataset(data.name, data.digest[:LONGEST_DIGEST], "edm2", json.dumps({"uri": data.location, "sha256": data.digest}))
            self._client.log_inputs(known.run, [DatasetInput(dataset)])
            known.data.add(dataset.digest)
        points = [point for point in training.points if point.epoch not in known.points.get(point.metric, ())]
        self._send(known, MOST_POINTS, metrics=[Metric(p.metric, p.value, int(p.time * 1000), p.epoch) for p in points])
        for point in points:
            known.points.setdefault(point.metric, set()).add(point.epoch)
        self._refer(known, training.results)
        status = _status(training, ended)
        if status != known.status:
            (self._client.update_run if status == "RUNNING" else self._client.set_terminated)(known.run, status)
            known.status = status

    def _send(self, known: _Known, most: int, **entities: list[Any]) -> None:
        """Log parameters, tags or metrics, at most so many in one request."""
        for kind, every in entities.items():
            for begin in range(0, len(every), most):
                self._client.log_batch(known.run, **{kind: every[begin : begin + most]})

    def _refer(self, known: _Known, results: list[dict[str, Any]]) -> None:
        """Log the list of the results and where they are as the run's one artifact."""
        digest = hashlib.sha256(json.dumps(results).encode()).hexdigest()
        if results and known.tags.get(REFERENCES) != digest:
            self._client.log_dict(known.run, {"results": results}, "results.json")
            self._client.set_tag(known.run, REFERENCES, digest)
            known.tags[REFERENCES] = digest


def _words(error: BaseException) -> str:
    """What went wrong, in one line without the credentials that an address may hold."""
    cause: BaseException | None = error
    while cause is not None:
        if {kind.__name__ for kind in type(cause).__mro__} & {"ConnectionError", "Timeout"}:
            return "it does not answer."
        cause = cause.__cause__ or cause.__context__
    said = str(error)
    begin = said.find("Response body: ")
    if shown_page := page(said[begin:].removeprefix("Response body: ").lstrip("'\"")) if begin >= 0 else "":
        return f"what answers is not its API, but {shown_page}; log in, or correct {URI}."
    if "error code 401" in said or "Exceeded 30 redirects" in said:
        return "it refuses: log in (MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)."
    return redacted((said.splitlines() or [type(error).__name__])[0])[:300]


def _status(training: Tracked, ended: bool) -> str:
    if not training.undone:
        return "FINISHED"
    if not ended:
        return "RUNNING"
    return "FAILED" if {"failed", "damaged"} & set(training.undone) else "KILLED"
