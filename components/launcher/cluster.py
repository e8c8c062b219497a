"""The few requests that are made of a Kubernetes API server, as plain data, with words for what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.launcher.job import PLURAL, SELECTOR
from components.launcher.profile import Profile
from edm2core.errors import EdmError, InputError

Object = dict[str, Any]
TIMEOUT = (3, 20)  # seconds to connect, to answer
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
JOBS = ("kubeflow.org", "v1")


class ClusterError(EdmError):
    """The API server did not do what was asked; `status` is its HTTP status, 0 if it was not reached."""

    def __init__(self, what: str, status: int, *, where: str, do_next: str) -> None:
        super().__init__(what, where=where, do_next=do_next, permanent=status not in (0, 408, 429) and status < 500)
        self.status = status


class Cluster:
    """A namespace of a cluster. Every method raises ClusterError."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._api = api

    @classmethod
    def connect(cls, profile: Profile) -> Cluster:
        """The profile's cluster; its own in a pod, if the profile names no context. Raises InputError if there is no way to it."""
        try:
            if profile.context is None and IN_POD.exists():
                configuration = client.Configuration()
                config.load_incluster_config(client_configuration=configuration)
                return cls(client.ApiClient(configuration), profile.namespace)
        except (config.ConfigException, OSError) as error:
            raise InputError(
                f"This pod has no account to reach its cluster with: {error}.",
                where=str(IN_POD),
                do_next="Give the pod a ServiceAccount with automountServiceAccountToken, or the profile a `context`.",
            ) from None
        return cls(api_client(profile.context), profile.namespace)

    def job(self, name: str) -> Object | None:
        """The PyTorchJob of that name, or None."""
        with self._words("get", PLURAL, name):
            try:
                found: Object = self._jobs.get_namespaced_custom_object(*JOBS, self.namespace, PLURAL, name, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status == 404 and "page not found" not in str(error.body):
                    return None
                raise
            return found

    def jobs(self, labels: dict[str, str] | None = None) -> list[Object]:
        """This project's PyTorchJobs."""
        with self._words("list", PLURAL):
            found = self._jobs.list_namespaced_custom_object(
                *JOBS, self.namespace, PLURAL, label_selector=_selector({**SELECTOR, **(labels or {})}), _request_timeout=TIMEOUT
            )
            return list(found["items"])

    def create_job(self, job: Object) -> bool:
        """Create a PyTorchJob; False if there is one of that name."""
        with self._words("create", PLURAL, job["metadata"]["name"]):
            try:
                self._jobs.create_namespaced_custom_object(*JOBS, self.namespace, PLURAL, job, _request_timeout=TIMEOUT)
            except ApiException as error:
                if error.status == 409:
                    return False
                raise
            return True

    def patch_job(self, name: str, change: Object) -> bool:
        """Merge `change` into a PyTorchJob; False if there is none."""
        with self._words("patch", PLURAL, name):
            return _there(
                lambda: self._jobs.patch_namespaced_custom_object(*JOBS, self.namespace, PLURAL, name, change, _request_timeout=TIMEOUT)
            )

    def delete_job(self, name: str) -> bool:
        """Delete a PyTorchJob and, by its owner references, its pods; False if there is none."""
        with self._words("delete", PLURAL, name):
            return _there(
                lambda: self._jobs.delete_namespaced_custom_object(
                    *JOBS, self.namespace, PLURAL, name, propagation_policy="Background", _request_timeout=TIMEOUT
                )
            )

    def pods(self, job: str) -> list[Object]:
        """The pods of a PyTorchJob."""
        with self._words("list", "pods"):
            selector = _selector({"training.kubeflow.org/job-name": job})
            return _items(
                self._core.list_namespaced_pod(self.namespace, label_selector=selector, _preload_content=False, _request_timeout=TIMEOUT)
            )

    def pod(self, name: str) -> Object | None:
        """The pod of that name, or None."""
        with self._words("get", "pods", name):
            try:
                found: Object = json.loads(
                    self._core.read_namespaced_pod(name, self.namespace, _preload_content=False, _request_timeout=TIMEOUT).data
                )
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
            return found

    def remove_pod(self, name: str, uid: str) -> bool:
        """Forget the pod of that name and uid at once, whether its node says that it has ended or not; False if there is none."""
        body = client.V1DeleteOptions(grace_period_seconds=0, preconditions=client.V1Preconditions(uid=uid))
        with self._words("delete", "pods", name):
            return _there(lambda: self._core.delete_namespaced_pod(name, self.namespace, body=body, _request_timeout=TIMEOUT))

    def events(self, uids: set[str]) -> list[Object]:
        """Events about these objects."""
        with self._words("list", "events"):
            found = _items(self._core.list_namespaced_event(self.namespace, _preload_content=False, _request_timeout=TIMEOUT))
            return [event for event in found if event["involvedObject"].get("uid") in uids]

    def log(self, pod: str, container: str, since: str, follow: bool) -> urllib3.BaseHTTPResponse:
        """A container's output from `since` (RFC 3339, to the second) on, each line with its time; `follow` goes on as it comes."""
        query = [("container", container), ("timestamps", "true"), ("follow", str(follow).lower())]
        query += [("sinceTime", since)] if since else []
        path = "/api/v1/namespaces/{namespace}/pods/{name}/log"
        with self._words("get", "pods/log", pod):
            response: urllib3.BaseHTTPResponse = self._api.call_api(
                path,
                "GET",
                {"namespace": self.namespace, "name": pod},
                query,
                {"Accept": "*/*"},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(TIMEOUT[0], 60),
            )
            return response

    @contextmanager
    def _words(self, verb: str, resource: str, name: str = "") -> Iterator[None]:
        where = f"{verb} {resource} {name} in namespace {self.namespace}".replace("  ", " ")
        try:
            yield
        except ApiException as error:
            raise refusal(error.status or 0, _message(error), verb, resource, where) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ClusterError(
                f"What answers at {self._api.configuration.host} is not the API server of Kubernetes: its answer is not of its kind.",
                0,
                where=where,
                do_next="Check the server of the profile's `context`: is it behind a page to log in?",
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host = self._api.configuration.host
            raise ClusterError(
                f"The cluster's API server at {host} cannot be reached: {type(error).__name__}.",
                0,
                where=where,
                do_next="Check the network and the profile's `context`.",
            ) from None


def api_client(context: str | None) -> client.ApiClient:
    """The way to the API server of a context of the kubeconfig, the current one if none is named.

    Raises InputError where there is none: no kubeconfig, one that cannot be read, or one that is wrong.
    """
    try:
        return config.new_client_from_config(context=context)
    except Exception as error:  # a kubeconfig may be wrong in any way: no YAML, another shape, certificates that are no base64
        words = f"it cannot be read: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split()).rstrip(".")
        raise InputError(
            f"There is no way to a cluster: {words or type(error).__name__}.",
            where=f"context {context or 'current'} in {os.environ.get('KUBECONFIG') or '~/.kube/config'}",
            do_next="Set KUBECONFIG to a kubeconfig that works, or name another context; `kubectl config get-contexts` lists them.",
        ) from None


def refusal(status: int, message: str, verb: str, resource: str, where: str) -> ClusterError:
    """What an answer of the API server means, for a person."""
    if status == 404 and "namespaces" in message:
        return ClusterError(f"There is no such namespace: {message}.", status, where=where, do_next="Create it: `kubectl apply -k k8s/…`.")
    if status == 404 and resource == PLURAL:
        return ClusterError(
            "This cluster knows no PyTorchJob: the training operator (v1) is not installed.",
            status,
            where=where,
            do_next="Install the Kubeflow training operator 1.9, or Kubeflow itself.",
        )
    if status == 403 and "cannot" in message:
        return ClusterError(
            f"Forbidden: {message}.",
            status,
            where=where,
            do_next=f"Its Role needs the verb {verb} on {resource}; k8s/base has such a Role.",
        )
    if status == 401:
        return ClusterError("The API server does not know this user.", status, where=where, do_next="Log in again.")
    return ClusterError(
        f"The API server refuses: {message}.", status, where=where, do_next="Change what it names, or ask who runs the cluster."
    )


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError):
        return f"HTTP {error.status} {error.reason}"


def _items(response: urllib3.BaseHTTPResponse) -> list[Object]:
    found: list[Object] = json.loads(response.data)["items"]
    return found


def _there(request: Any) -> bool:
    try:
        request()
    except ApiException as error:
        if error.status == 404 and "page not found" not in str(error.body):
            return False
        raise
    return True


def _selector(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels.items())
