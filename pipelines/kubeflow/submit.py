"""Runs on Kubeflow Pipelines: submitted, looked up, waited for and terminated through its API.

Kubeflow's run has a name that anybody may change, so what belongs to a run of ours is told by its parameter `run`: clones, runs of a
schedule, and those that others start through the API have it too. The tests answer as the API of 2.17 is specified.
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

from components.launcher.cluster import IN_POD, ApiServer
from components.launcher.profile import Profile
from edm2core.answers import unlike_json
from edm2core.errors import EdmError, InputError
from pipelines.kubeflow.client import AnswerError, Client

OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_S = 5.0
PAGE, MOST = 100, 2000  # of Kubeflow's runs: asked for at once, looked through


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
        self._documents: dict[tuple[str, str], dict[str, Any]] = {}
        if not profile.kfp.host and not IN_POD.exists():
            ApiServer.connect(profile.context)  # Kubeflow's own client would ask localhost if there were no way to an API server
        with self._words("connect"):
            self._client = Client(host=profile.kfp.host, namespace=profile.kfp.namespace, kube_context=profile.context)
            # An installation for one user refuses a namespace, one for many needs it; the client would send the one it is installed in.
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
        """Kubeflow's runs of that run, whatever they are called, the latest first; of all the latest MOST are looked through."""
        found, token, looked = [], "", 0
        with self._words("list runs"):
            while looked < MOST:
                page = self._client.list_runs(page_size=PAGE, page_token=token, sort_by="created_at desc", namespace=self._namespace)
                found += [_submitted(one) for one in page.runs or () if self._parameter(one) == run]
                looked, token = looked + PAGE, page.next_page_token or ""
                if not token:
                    break
        return found

    def link(self, id: str) -> str:
        """The page of a run in Kubeflow's UI; without a host, its path there."""
        host = self._profile.kfp.ui or self._profile.kfp.host or ""
        return f"{host.rstrip('/')}/#/runs/details/{id}"

    def errors(self, id: str) -> dict[str, str]:
        """What Kubeflow itself says of tasks that failed, by their names there: the only word of one that never had a pod."""
        with self._words("get run"):
            run = self._client.get_run(id)
            details = (run.run_details.task_details if run.run_details else None) or ()
            found = {str(detail.display_name): str(detail.error.message) for detail in details if detail.error and detail.error.message}
            return {**({"the run": str(run.error.message)} if run.error and run.error.message else {}), **found}

    def _parameter(self, run: V2beta1Run) -> str:
        """The parameter `run` of one of Kubeflow's, given or by default."""
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
        """An uploaded package, which its runs only refer to; nothing if it was deleted since."""
        if (pipeline, version) not in self._documents:
            try:
                self._documents[pipeline, version] = self._client.get_pipeline_version(pipeline, version).pipeline_spec or {}
            except ApiException as error:
                if error.status != 404:
                    raise
                self._documents[pipeline, version] = {}
        return self._documents[pipeline, version]

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
        except ValueError as error:
            raise EdmError(
                f"Kubeflow's client refuses: {' '.join(str(error).split()).rstrip('.')}.",
                where=where,
                do_next="Look at ~/.config/kfp/context.json, which it reads, and at the variables KF_PIPELINES_….",
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EdmError(
                f"Kubeflow Pipelines cannot be reached: {_why(error)}.",
                where=where,
                do_next=f"Set the profile's `kfp.host`, for example after {reached}.",
                permanent=False,
            ) from None


def must_find(kubeflow: Kubeflow, run: str) -> list[Submitted]:
    """Kubeflow's runs of that run that go on, or the latest that has ended; raises InputError if there is none."""
    found = kubeflow.runs(run)
    if not found:
        raise InputError(f"Kubeflow Pipelines knows no run {run}.", where=run, do_next="`edm2 submit` names the run that it starts.")
    return [one for one in found if not one.over] or found[:1]


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
    if status in (502, 503, 504):
        return EdmError(
            f"Kubeflow Pipelines is not up: what stands before it answers {said}.",
            where=where,
            do_next=f"See whether its pods run, or reach it after {reached}.",
            permanent=False,
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
