"""Runs on Kubeflow Pipelines: submitted, looked up, waited for and terminated through its API.

Untested on a real one: the tests answer as the API of 2.17 is specified.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from kfp_server_api import ApiException, V2beta1Run

from components.launcher.cluster import IN_POD, api_client
from components.launcher.profile import Profile
from edm2core.answers import unlike_json
from edm2core.errors import EdmError, InputError
from pipelines.kfp_client import AnswerError, Client

OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_S = 5.0


@dataclass(frozen=True)
class Submitted:
    """A run of Kubeflow's; `state` is as Kubeflow says it, such as RUNNING or CANCELED."""

    id: str
    name: str
    state: str
    reason: str

    @property
    def over(self) -> bool:
        return self.state in OVER


class Kubeflow:
    """A cluster's Kubeflow Pipelines. Every method raises EdmError when it cannot be reached or refuses."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        if not profile.kfp.host and not IN_POD.exists():
            api_client(profile.context)  # through whose API server Kubeflow is reached: its own client would ask localhost without one
        with self._words("connect"):
            self._client = Client(host=profile.kfp.host, namespace=profile.kfp.namespace, kube_context=profile.context)
            # An installation for one user refuses a namespace, one for many needs it; the client would send the one it is installed in.
            self._namespace = profile.namespace if self._client.get_kfp_healthz().multi_user else None
            self._client._context_setting["namespace"] = self._namespace or ""

    def submit(self, package: Path, experiment: str, run: str) -> Submitted:
        """Start the package as a run of that name, under the profile's ServiceAccount."""
        with self._words("submit"):
            group = self._client.create_experiment(experiment, namespace=self._namespace)
            account = self._profile.service_accounts.control
            return _submitted(self._client.run_pipeline(group.experiment_id, run, str(package), service_account=account))

    def find(self, run: str) -> Submitted | None:
        """The latest run of that name, or None."""
        same = {"key": "display_name", "operation": "EQUALS", "stringValue": run}
        with self._words("list runs"):
            found = self._client.list_runs(
                page_size=1, sort_by="created_at desc", filter=json.dumps({"predicates": [same]}), namespace=self._namespace
            )
            return _submitted(found.runs[0]) if found.runs else None

    def look(self, id: str) -> Submitted:
        """How a run stands."""
        with self._words("get run"):
            return _submitted(self._client.get_run(id))

    def wait(self, id: str, changed: Callable[[Submitted], None], poll_s: float = POLL_S) -> Submitted:
        """Wait until a run is over, however it ends; the client's own waiting takes a cancelled run for one that goes on."""
        state = ""
        while True:
            run = self.look(id)
            if run.state != state:
                state = run.state
                changed(run)
            if run.over:
                return run
            time.sleep(poll_s)

    def terminate(self, id: str) -> None:
        """End a run. What its tasks started ends by their own doing: each has under a second for one request."""
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
        except AnswerError as error:
            raise EdmError(
                f"What answers is not the API of Kubeflow Pipelines: it is {error}.",
                where=where,
                do_next=f"Log in, if that is what it asks for; or set the profile's `kfp.host` past it, for example after {reached}.",
            ) from None
        except ApiException as error:
            raise _refusal(error, where, reached) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EdmError(
                f"Kubeflow Pipelines cannot be reached: {_why(error)}.",
                where=where,
                do_next=f"Set the profile's `kfp.host`, for example after {reached}.",
                permanent=False,
            ) from None


def must_find(kubeflow: Kubeflow, run: str) -> Submitted:
    """The latest run of that name; raises InputError if there is none."""
    found = kubeflow.find(run)
    if found is None:
        raise InputError(f"Kubeflow Pipelines knows no run {run}.", where=run, do_next="`edm2 submit` names the run that it starts.")
    return found


def _submitted(run: V2beta1Run) -> Submitted:
    if not run.run_id:
        raise AnswerError("JSON without a run's id")
    return Submitted(str(run.run_id), str(run.display_name), str(run.state or "PENDING"), str(run.error.message) if run.error else "")


def _refusal(error: ApiException, where: str, reached: str) -> EdmError:
    """What a status that is no success means, for a person."""
    status, unlike = error.status or 0, unlike_json(error.body or "", error.status or 0, error.headers or {})
    said = _message(error)
    if status == 0:
        return EdmError(
            f"Kubeflow Pipelines cannot be reached: its certificate is not trusted ({said}).",
            where=where,
            do_next=f"Correct the profile's `kfp.host`, or reach it after {reached}.",
        )
    if status == 401 or (status == 403 and unlike):
        return EdmError(f"Kubeflow Pipelines refuses: log in ({said}).", where=where, do_next=f"Log in again, or reach it after {reached}.")
    if 300 <= status < 400 or (status == 404 and unlike):
        return EdmError(
            f"What answers is not the API of Kubeflow Pipelines: it is {unlike} (HTTP {status}).",
            where=where,
            do_next=f"Log in, if that is what it asks for; or set the profile's `kfp.host` past it, for example after {reached}.",
        )
    return EdmError(
        f"Kubeflow Pipelines refuses: {said}.",
        where=where,
        do_next="Check the profile's `kfp`, `namespace` and `service_accounts`, and that you are logged in.",
        permanent=status < 500 and status not in (408, 429),
    )


def _message(error: ApiException) -> str:
    try:
        body: dict[str, Any] = json.loads(error.body)
        return str(body.get("error") or body["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError, AttributeError):
        return f"HTTP {error.status} {error.reason}".removeprefix("HTTP 0 ").replace("\n", ": ")


def _why(error: Exception) -> str:
    """The cause in a line, without the library's account of its pool and its tries."""
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(reason).__name__
