"""All requests to Kubernetes: plain data in and out, one policy of time-outs and retries, and an error in words for each refusal."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed
from urllib3.util import Retry

from components.launcher.job import SELECTOR, selector
from components.launcher.job_kinds import KINDS, JobKind, kind_of
from components.launcher.profile import Profile
from edm2core.errors import EdmError, InputError

Object = dict[str, Any]
Query = Mapping[str, str]
Answer = TypeVar("Answer")
TIMEOUT = (3, 20)  # the most seconds to connect, and to wait for an answer
LOG_TIMEOUT = (3, 60)  # the same for logs: one that is followed may be silent for longer
RETRY = Retry(total=2, redirect=False, backoff_factor=0.3)  # after a broken connection; a redirection is not followed: it leads to a login
AWAY_S = 60.0  # the most time that `patiently` waits for an API server that is unreachable or overloaded
IN_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KUEUE = "apis/kueue.x-k8s.io/v1beta2"
METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "delete": "DELETE"}


class ClusterError(EdmError):
    """The API server did not do what was asked. `status` is the HTTP status, or 0 without an answer. `said` is the server's message."""

    def __init__(self, what: str, status: int, *, where: str, do_next: str, said: str = "") -> None:
        super().__init__(what, where=where, do_next=do_next, permanent=status not in (0, 408, 429) and status < 500)
        self.status, self.said = status, said or what.rstrip(".")


class ApiServer:
    """An API server of Kubernetes. Every method raises ClusterError."""

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.retries = RETRY
        self._api = client.ApiClient(configuration)
        self.host = str(configuration.host)

    @classmethod
    def connect(cls, context: str | None) -> "ApiServer":
        """The API server of a kubeconfig context. Without one, a pod gets its own cluster's, and any other machine the current context's.

        Raises InputError if the pod has no account, or if the kubeconfig is missing, unreadable or wrong.
        """
        configuration = client.Configuration()
        if context is None and IN_POD.exists():
            try:
                config.load_incluster_config(client_configuration=configuration)
            except (config.ConfigException, OSError) as error:
                raise InputError(
                    f"This pod has no account to reach its cluster with: {error}.",
                    where=str(IN_POD),
                    do_next="Give the pod a ServiceAccount with automountServiceAccountToken, or the profile a `context`.",
                ) from None
            return cls(configuration)
        try:
            config.load_kube_config(context=context, client_configuration=configuration)
            return cls(configuration)
        except Exception as error:  # a kubeconfig may be wrong in any way: no YAML, another shape, certificates that are no base64
            words = f"it cannot be read: {error.strerror}" if isinstance(error, OSError) else " ".join(str(error).split()).rstrip(".")
            raise InputError(
                f"There is no way to a cluster: {words or type(error).__name__}.",
                where=f"context {context or 'current'} in {os.environ.get('KUBECONFIG') or '~/.kube/config'}",
                do_next="Set KUBECONFIG to a kubeconfig that works, or name another context; `kubectl config get-contexts` lists them.",
            ) from None

    def get(self, path: str, **query: str) -> Object:
        """The object at a path of the API."""
        with self.errors_in_words("get", path, f"GET {path}"):
            return self.answer("get", path, query)

    def create(self, path: str, body: Object, **query: str) -> Object:
        """Create an object below a path of the API, and return it as the server has it. With dryRun="All" nothing is kept."""
        with self.errors_in_words("create", path, f"POST {path}"):
            return self.answer("create", path, query, body)

    def answer(self, verb: str, path: str, query: Query | None = None, body: Object | None = None) -> Object:
        """The answer to a request, as plain data. Raises the libraries' exceptions: call it within `errors_in_words`."""
        return dict(json.loads(self.response(verb, path, query, body).data))

    def response(
        self, verb: str, path: str, query: Query | None = None, body: Object | None = None, timeout: tuple[int, int] = TIMEOUT
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a request, its body not yet read. Raises the libraries' exceptions: call it within `errors_in_words`."""
        response: urllib3.BaseHTTPResponse = self._api.call_api(
            path,
            METHODS[verb],
            query_params=list((query or {}).items()),
            header_params={"Accept": "*/*", "Content-Type": "application/merge-patch+json" if verb == "patch" else "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=timeout,
        )
        return response

    @contextmanager
    def errors_in_words(self, verb: str, resource: str, where: str) -> Iterator[None]:
        """Raise a ClusterError for the exception of a request, and for an answer that cannot come from Kubernetes."""
        try:
            yield
        except (ApiException, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, ApiException) and not 300 <= (error.status or 0) < 400:
                raise refusal(error.status or 0, _message(error), verb, resource, where) from None
            raise ClusterError(
                f"What answers at {self.host} is not the API server of Kubernetes: its answer is not of its kind.",
                0,
                where=where,
                do_next="Check the server of the profile's `context`: is it behind a page to log in?",
            ) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = type(error).__name__
            raise ClusterError(
                f"The cluster's API server at {self.host} cannot be reached: {reason}.",
                0,
                where=where,
                do_next="Check the network and the profile's `context`.",
                said=f"it cannot be reached ({reason})",
            ) from None


class Cluster:
    """A namespace of a cluster, and this project's jobs of one kind in it. Every method raises ClusterError."""

    def __init__(self, api: ApiServer, namespace: str, kind: JobKind, choice: str = "") -> None:
        self._api, self.namespace, self.kind = api, namespace, kind
        self.choice = choice  # which kind of job was chosen and why, in words

    @classmethod
    def connect(cls, profile: Profile) -> "Cluster":
        """The profile's cluster. If the profile names no context, a pod gets its own. If it names no kind of job, the cluster is asked.

        Raises InputError if there is no way to the cluster, and ClusterError if it cannot be asked or knows no kind of job.
        """
        api = ApiServer.connect(profile.context)
        if profile.job:
            kind, choice = kind_of(profile), f"Jobs are {kind_of(profile).name}s, as the profile says."
        else:
            kind, choice = choose_kind(patiently(lambda: kinds_of(api)), api.host)
        return cls(api, profile.namespace, kind, choice)

    def with_other_kinds(self) -> list["Cluster"]:
        return [Cluster(self._api, self.namespace, kind) for kind in KINDS if kind is not self.kind]

    def job(self, name: str) -> Object | None:
        return self._ask("get", self.kind.plural, name)

    def jobs(self, labels: Mapping[str, str] | None = None) -> list[Object]:
        """This project's jobs with these labels."""
        return self._list(self.kind.plural, labelSelector=selector({**SELECTOR, **(labels or {})}))

    def create_job(self, job: Object) -> bool:
        """Create a job; False if there is one of that name."""
        try:
            return self._ask("create", self.kind.plural, job["metadata"]["name"], body=job) is not None
        except ClusterError as error:
            if words := self.kind.in_words(job, error.said):
                raise ClusterError(words[0], error.status, where=error.where, do_next=words[1], said=error.said) from None
            raise

    def patch_job(self, name: str, change: Object) -> bool:
        """Merge `change` into a job; False if there is none of that name."""
        return self._ask("patch", self.kind.plural, name, body=change) is not None

    def delete_job(self, name: str, seen: Object | None = None) -> bool:
        """Delete a job and, by its owner references, its pods; False if there is none, or if it has changed since it was `seen`."""
        unchanged = {"preconditions": {part: seen["metadata"][part] for part in ("uid", "resourceVersion")}} if seen else {}
        return self._ask("delete", self.kind.plural, name, body={"propagationPolicy": "Background", **unchanged}) is not None

    def pods(self, job: str) -> list[Object]:
        """The pods of the job of that name."""
        return self._list("pods", labelSelector=selector(self.kind.pod_labels(job)))

    def pod(self, name: str) -> Object | None:
        return self._ask("get", "pods", name)

    def create_pod(self, pod: Object) -> None:
        """Create a pod, unless there is one of that name."""
        self._ask("create", "pods", pod["metadata"]["name"], body=pod)

    def remove_pod(self, name: str, uid: str = "") -> None:
        """Delete the pod of that name and, if given, uid, without waiting for its node to confirm that it ended."""
        self._ask("delete", "pods", name, body={"gracePeriodSeconds": 0, **({"preconditions": {"uid": uid}} if uid else {})})

    def workloads(self, job: str) -> list[Object]:
        """What Kueue has recorded about the job of that uid."""
        return self._list("workloads", labelSelector=f"kueue.x-k8s.io/job-uid={job}")

    def events(self) -> list[Object]:
        return self._list("events")

    def log(self, pod: str, container: str, since: str, follow: bool) -> urllib3.BaseHTTPResponse:
        """A container's output from the second `since` on (RFC 3339). Each line begins with its time. `follow` waits for further lines."""
        query = {"container": container, "timestamps": "true", "follow": str(follow).lower(), **({"sinceTime": since} if since else {})}
        with self._errors_in_words("get", "pods/log", pod):
            return self._api.response("get", self._path("pods", pod) + "/log", query, timeout=LOG_TIMEOUT)

    def output(self, pod: str, container: str) -> str:
        """What a container has printed."""
        with self._errors_in_words("get", "pods/log", pod):
            response = self._api.response("get", self._path("pods", pod) + "/log", {"container": container})
            return response.data.decode(errors="replace")

    def _ask(self, verb: str, resource: str, name: str, query: Query | None = None, body: Object | None = None) -> Object | None:
        """The answer to a request about an object. None if no object has that name, if it is not as the
        request demands or, for the verb create, if one has that name."""
        create = verb == "create"
        with self._errors_in_words(verb, resource, name):
            try:
                return self._api.answer(verb, self._path(resource, "" if create else name), query, body)
            except ApiException as error:
                # The answer "page not found" means something else: the cluster does not know this kind of object.
                missing = error.status == 404 and "page not found" not in str(error.body)
                if (error.status == 409 and verb in ("create", "delete")) or (missing and not create):
                    return None
                raise

    def _list(self, resource: str, **query: str) -> list[Object]:
        with self._errors_in_words("list", resource):
            return list(self._api.answer("list", self._path(resource), query)["items"])

    def _path(self, resource: str, name: str = "") -> str:
        own = {self.kind.plural: f"apis/{self.kind.group}/{self.kind.version}", "workloads": KUEUE}
        api = own.get(resource, "api/v1")
        return f"/{api}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    @contextmanager
    def _errors_in_words(self, verb: str, resource: str, name: str = "") -> Iterator[None]:
        where = " ".join(filter(None, [verb, resource, name, "in namespace", self.namespace]))
        try:
            with self._api.errors_in_words(verb, resource, where):
                yield
        except ClusterError as error:
            if error.status == 404 and resource == self.kind.plural and "namespaces" not in error.said:
                kind = self.kind
                what = f"This cluster knows no {kind.name}: {kind.operator} ({kind.version}) is not installed."
                raise ClusterError(what, 404, where=where, do_next=kind.install) from None
            raise


def patiently(request: Callable[[], Answer]) -> Answer:
    """Repeat a request for AWAY_S while the API server is unreachable or overloaded. Raises its ClusterError after that."""
    passes = retry_if_exception(lambda error: isinstance(error, ClusterError) and not error.permanent)
    return Retrying(retry=passes, stop=stop_after_delay(AWAY_S), wait=wait_fixed(1), reraise=True)(request)


def kinds_of(api: ApiServer) -> list[JobKind]:
    """The kinds of job that a cluster knows, the preferred one first. Raises ClusterError."""
    known = []
    for kind in KINDS:
        try:
            resources = api.get(f"/apis/{kind.group}/{kind.version}")["resources"]
        except ClusterError as error:
            if error.status != 404:
                raise
        else:
            known += [kind for resource in resources if resource["name"] == kind.plural]
    return known


def choose_kind(known: list[JobKind], where: str) -> tuple[JobKind, str]:
    """The kind of job to use on a cluster that knows these, and why, in words. Raises ClusterError if it knows none."""
    if not known:
        names = " nor ".join(kind.name for kind in KINDS)
        operators = " and ".join(f"{kind.operator} ({kind.version})" for kind in KINDS)
        what = f"This cluster knows neither {names}: {operators} are not installed."
        raise ClusterError(what, 404, where=where, do_next=" Or: ".join(kind.install for kind in KINDS))
    kind, *others = known
    if not others:
        return kind, f"Jobs are {kind.name}s, the only kind that this cluster knows."
    other = others[0]
    return kind, f"Jobs are {kind.name}s. This cluster knows {other.name} too; `job: {other.word}` in the profile chooses it."


def refusal(status: int, message: str, verb: str, resource: str, where: str) -> ClusterError:
    """What a refusal by the API server means, and what to do."""
    if status == 404 and "namespaces" in message:
        what, do_next = f"There is no such namespace: {message}.", "Create it: `kubectl apply -k k8s/…`."
    elif status == 403 and "cannot" in message:
        what, do_next = f"Forbidden: {message}.", f"Its Role needs the verb {verb} on {resource}; k8s/base has such a Role."
    elif status == 401:
        what, do_next = "The API server does not know this user.", "Log in again."
    else:
        what, do_next = f"The API server refuses: {message}.", "Change what it names, or ask who runs the cluster."
    return ClusterError(what, status, where=where, do_next=do_next, said=message)


def _message(error: ApiException) -> str:
    """The message of the API server's answer."""
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError):
        return f"HTTP {error.status} {error.reason}"
