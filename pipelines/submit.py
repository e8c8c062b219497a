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

import kfp
import urllib3
from kfp_server_api import ApiException, V2beta1Run

from components.launcher.profile import Profile
from edm2core.errors import EdmError, InputError

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
        with self._words("connect"):
            self._client = kfp.Client(host=profile.kfp.host, namespace=profile.kfp.namespace, kube_context=profile.context)
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
        where = f"{doing}: {self._profile.kfp.host or f'namespace {self._profile.kfp.namespace}'}"
        try:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # the client prints links of its own
                warnings.simplefilter("ignore")
                yield
        except ApiException as error:
            raise EdmError(
                f"Kubeflow Pipelines refuses: {_message(error)}.",
                where=where,
                do_next="Check the profile's `kfp`, `namespace` and `service_accounts`, and that you are logged in.",
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EdmError(
                f"Kubeflow Pipelines cannot be reached: {type(error).__name__}.",
                where=where,
                do_next="Set the profile's `kfp.host`, for example after "
                f"`kubectl port-forward -n {self._profile.kfp.namespace} service/ml-pipeline 8888` to http://localhost:8888.",
                permanent=False,
            ) from None


def must_find(kubeflow: Kubeflow, run: str) -> Submitted:
    """The latest run of that name; raises InputError if there is none."""
    found = kubeflow.find(run)
    if found is None:
        raise InputError(f"Kubeflow Pipelines knows no run {run}.", where=run, do_next="`edm2 submit` names the run that it starts.")
    return found


def _submitted(run: V2beta1Run) -> Submitted:
    return Submitted(str(run.run_id), str(run.display_name), str(run.state or "PENDING"), str(run.error.message) if run.error else "")


def _message(error: ApiException) -> str:
    try:
        body: dict[str, Any] = json.loads(error.body)
        return str(body.get("error") or body["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError):
        return f"HTTP {error.status} {error.reason}"
