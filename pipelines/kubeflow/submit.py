"""Runs on Kubeflow Pipelines: submits, finds, waits for and terminates them through its API, as specified for 2.17.

Anybody may change the name of a run in Kubeflow. So Kubeflow's runs that belong to a run of edm2 are found by their parameter `run`. It is
also that of clones, of runs of a schedule, and of runs that others start through the API.
"""

import contextlib
import io
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp
import urllib3
from kfp.client import KF_PIPELINES_SA_TOKEN_ENV
from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
from kfp_server_api import ApiException, Configuration, V2beta1GetHealthzResponse, V2beta1Run
from urllib3.util import Retry

from components.launcher.cluster import IN_POD, ApiServer
from components.launcher.profile import Profile
from edm2core.errors import EdmError, InputError
from edm2core.http_answers import unlike_json

TIMEOUT = (5, 60)  # the most seconds to connect, and to wait for an answer
RETRY = Retry(total=2, redirect=False, backoff_factor=0.3)  # redirections are not followed: they lead to a page to log in
OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
USER_HEADER = "kubeflow-userid"  # by which Kubeflow's gateway tells its services who has logged in
POLL_S = 5.0  # the time between two looks at a run
PAGE, MOST = 100, 2000  # how many of Kubeflow's runs to ask for at once, and the most to search


class AnswerError(Exception):
    """Something other than the API answered. The message says what it is."""


class Client(kfp.Client):  # type: ignore[misc]
    """Kubeflow's client, made strict: it raises AnswerError at once for an answer that is not the API's, and ApiException for a refusal."""

    def _load_config(self, *given: Any, **named: Any) -> Configuration:
        config = super()._load_config(*given, **named)
        config.retries = RETRY
        return config

    def get_kfp_healthz(self, sleep_duration: int = 0) -> V2beta1GetHealthzResponse:
        """Whether the server is up. This asks once; the overridden method asks five times and prints tracebacks."""
        rest = self._healthz_api.api_client.rest_client
        if "request" not in vars(rest):  # this is the client's first request
            rest.request = _checked(rest.request)
        return self._healthz_api.healthz_service_get_healthz()


def _checked(request: Any) -> Any:
    """The client's function for requests, with time limits and with a check of every answer."""

    def ask(method: str, url: str, **named: Any) -> Any:
        answer = request(method, url, **{**named, "_request_timeout": named.get("_request_timeout") or TIMEOUT})
        if named.get("_preload_content", True) and (unlike := unlike_json(answer.data, answer.status, answer.getheaders())):
            raise AnswerError(unlike)
        return answer

    return ask


@dataclass(frozen=True)
class Submitted:
    """A run of Kubeflow's. The state is one of Kubeflow's words, such as RUNNING or CANCELED."""

    id: str
    name: str
    state: str
    reason: str

    @property
    def over(self) -> bool:
        return self.state in OVER


class Kubeflow:
    """A cluster's Kubeflow Pipelines. Every method raises EdmError if it cannot be reached or refuses."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._documents: dict[tuple[str, str], dict[str, Any]] = {}
        if not profile.kfp.host and not IN_POD.exists():
            ApiServer.connect(profile.context)  # raises if there is no way to an API server; Kubeflow's client would ask localhost
        with self._words("connect"):
            token = ServiceAccountTokenVolumeCredentials() if profile.kfp.host and os.environ.get(KF_PIPELINES_SA_TOKEN_ENV) else None
            self._client = Client(host=profile.kfp.host, namespace=profile.kfp.namespace, kube_context=profile.context, credentials=token)
            if profile.kfp.user:
                self._client._healthz_api.api_client.set_default_header(USER_HEADER, profile.kfp.user)  # all its APIs share this client
            # An installation for one user refuses a namespace; one for many users needs it. The client would send the installation's own.
            self._namespace = profile.namespace if self._client.get_kfp_healthz().multi_user else None
            self._client._context_setting["namespace"] = self._namespace or ""

    def submit(self, package: Path, experiment: str, run: str, part: str = "") -> Submitted:
        """Start the package as a run of that name, under the profile's ServiceAccount."""
        with self._words("submit"):
            group = self._client.create_experiment(experiment, namespace=self._namespace)
            account, name = self._profile.service_accounts.control, f"{run} ({part})" if part else run
            made = self._client.run_pipeline(group.experiment_id, name, str(package), params={"run": run}, service_account=account)
            return _submitted(made)

    def runs(self, run: str) -> list[Submitted]:
        """Kubeflow's runs for that run of edm2, under any name, the latest first. Only the latest MOST of all runs are searched."""
        matching, token = [], ""
        with self._words("list runs"):
            for _ in range(0, MOST, PAGE):
                page = self._client.list_runs(page_size=PAGE, page_token=token, sort_by="created_at desc", namespace=self._namespace)
                matching += [_submitted(other) for other in page.runs or () if self._parameter(other) == run]
                if not (token := page.next_page_token or ""):
                    break
        return matching

    def link(self, id: str) -> str:
        """The address of a run's page in Kubeflow's UI; without a host, its path."""
        host = self._profile.kfp.ui or self._profile.kfp.host or ""
        return f"{host.rstrip('/')}/#/runs/details/{id}"

    def errors(self, id: str) -> dict[str, str]:
        """Kubeflow's own errors of failed tasks, by the tasks' names there. About a task that never had a pod, nothing else is known."""
        with self._words("get run"):
            run = self._client.get_run(id)
        details = (run.run_details.task_details if run.run_details else None) or ()
        errors = {"the run": run.error, **{str(detail.display_name): detail.error for detail in details}}
        return {name: str(error.message) for name, error in errors.items() if error and error.message}

    def _parameter(self, run: V2beta1Run) -> str:
        """The parameter `run` of one of Kubeflow's runs: its given value, or else its default."""
        given = (run.runtime_config.parameters or {}) if run.runtime_config else {}
        if "run" in given:
            return str(given["run"])
        reference = run.pipeline_version_reference
        document = run.pipeline_spec or (
            self._document(str(reference.pipeline_id), str(reference.pipeline_version_id)) if reference else {}
        )
        spec = document.get("pipeline_spec", document)
        inputs = spec.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
        return str(inputs.get("run", {}).get("defaultValue", ""))

    def _document(self, pipeline: str, version: str) -> dict[str, Any]:
        """An uploaded package, to which its runs only refer; empty if it was deleted."""
        if (pipeline, version) not in self._documents:
            try:
                self._documents[pipeline, version] = self._client.get_pipeline_version(pipeline, version).pipeline_spec or {}
            except ApiException as error:
                if error.status != 404:
                    raise
                self._documents[pipeline, version] = {}
        return self._documents[pipeline, version]

    def wait(self, id: str, changed: Callable[[Submitted], None], poll_s: float = POLL_S) -> Submitted:
        """Wait until a run is over, however it ends. (The client's own function would wait on for a cancelled run.)"""
        state = ""
        while True:
            with self._words("get run"):
                run = _submitted(self._client.get_run(id))
            if run.state != state:
                state = run.state
                changed(run)
            if run.over:
                return run
            time.sleep(poll_s)

    def terminate(self, id: str) -> None:
        """End a run. Its tasks stop the jobs that they started: each has less than a second for one request."""
        with self._words("terminate"):
            self._client.terminate_run(id)

    @contextmanager
    def _words(self, doing: str) -> Iterator[None]:
        kfp = self._profile.kfp
        where = f"{doing}: {kfp.host or f'namespace {kfp.namespace}'}"
        reached = f"`kubectl port-forward -n {kfp.namespace} service/ml-pipeline 8888` to http://localhost:8888"
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the client prints links of its own
                warnings.simplefilter("ignore")
                yield
        except (AnswerError, ApiException, ValueError, urllib3.exceptions.HTTPError, OSError) as error:
            what, do_next, permanent = _explained(error, reached)
            raise EdmError(what, where=where, do_next=do_next, permanent=permanent) from error


def must_find(kubeflow: Kubeflow, run: str) -> list[Submitted]:
    """Kubeflow's runs that belong to a run of edm2 and go on, or else the latest that has ended. Raises InputError if there is none."""
    runs = kubeflow.runs(run)
    if not runs:
        raise InputError(f"Kubeflow Pipelines knows no run {run}.", where=run, do_next="`edm2 submit` names the run that it starts.")
    return [submitted for submitted in runs if not submitted.over] or runs[:1]


def _submitted(run: V2beta1Run) -> Submitted:
    if not run.run_id:
        raise AnswerError("JSON without a run's id")
    return Submitted(str(run.run_id), str(run.display_name), str(run.state or "PENDING"), str(run.error.message) if run.error else "")


def _explained(error: Exception, reached: str) -> tuple[str, str, bool]:
    """What happened, what to do next, and whether it stays so. `reached` says how to reach Kubeflow past what stands before it."""
    if isinstance(error, ApiException):
        return _refused(error, reached)
    if isinstance(error, AnswerError):
        return _not_the_api(str(error), reached)
    if isinstance(error, ValueError):
        what = f"Kubeflow's client refuses: {' '.join(str(error).split()).rstrip('.')}."
        return what, "Look at ~/.config/kfp/context.json, which it reads, and at the variables KF_PIPELINES_….", True
    return f"Kubeflow Pipelines cannot be reached: {_why(error)}.", f"Set the profile's `kfp.host`, for example after {reached}.", False


def _refused(error: ApiException, reached: str) -> tuple[str, str, bool]:
    """As `_explained`, of an answer whose status is not one of success."""
    status, unlike = error.status or 0, unlike_json(error.body or "", error.status or 0, error.headers or {})
    said, permanent = _message(error), status < 500 and status not in (408, 429)
    if 300 <= status < 400 or (status == 404 and unlike):
        return _not_the_api(f"{unlike} (HTTP {status})", reached)
    if status == 0:
        what = f"Kubeflow Pipelines cannot be reached: its certificate is not trusted ({said})."
        return what, f"Correct the profile's `kfp.host`, or reach it after {reached}.", permanent
    if status == 401 or (status == 403 and unlike):
        return f"Kubeflow Pipelines refuses: log in ({said}).", f"Log in again, or reach it after {reached}.", permanent
    if status in (502, 503, 504):
        what = f"Kubeflow Pipelines is not up: what stands before it answers {said}."
        return what, f"See whether its pods run, or reach it after {reached}.", permanent
    do_next = "Check the profile's `kfp`, `namespace` and `service_accounts`, and that you are logged in."
    return f"Kubeflow Pipelines refuses: {said}.", do_next, permanent


def _not_the_api(unlike: str, reached: str) -> tuple[str, str, bool]:
    do_next = f"Log in, if that is what it asks for; or set the profile's `kfp.host` past it, for example after {reached}."
    return f"What answers is not the API of Kubeflow Pipelines: it is {unlike}.", do_next, True


def _message(error: ApiException) -> str:
    """The server's own words, or else the HTTP status."""
    try:
        body: dict[str, Any] = json.loads(error.body)
        return str(body.get("error") or body["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"HTTP {error.status} {error.reason}".removeprefix("HTTP 0 ").replace("\n", ": ")


def _why(error: Exception) -> str:
    """The cause in one line. The library's own message also names its connection pool and how often it has tried."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(reason).__name__
