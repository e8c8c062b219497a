"""Looks at a machine, a store and a cluster before work is sent there: each thing ok, worth a note, or a problem with what to do."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from components.launcher.cluster import api_client
from components.launcher.job import API, PLURAL
from components.launcher.profile import Profile
from edm2core.answers import unlike_json
from edm2core.errors import EdmError
from edm2core.store import open_store

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
STAGES = ("prepare", "start", "snapshot", "ema", "sample", "extractor", "reference", "metrics", "probe", "diagnostics")
Right = tuple[str, str, str, str]  # API group, resource, verb, name (none: any)


def _each(*rules: tuple[str, str, tuple[str, ...], str]) -> tuple[Right, ...]:
    return tuple((group, resource, verb, name) for group, resource, verbs, name in rules for verb in verbs)


RIGHTS = _each(  # of the control pods' ServiceAccount, as k8s/base/role.yaml grants them
    ("kubeflow.org", PLURAL, ("get", "list", "create", "patch", "delete"), ""),
    ("", "pods", ("get", "list", "delete"), ""),
    ("", "pods/log", ("get",), ""),
    ("", "events", ("list",), ""),
)
KFP_RIGHTS = _each(  # what Kubeflow Pipelines' own machinery does under that account, as k8s/components/kfp grants it
    ("", "configmaps", ("get",), "kfp-launcher"),
    ("", "secrets", ("get",), "mlpipeline-minio-artifact"),
    ("argoproj.io", "workflowtaskresults", ("create", "patch"), ""),
)
TORCH = "import torch; print(torch.__version__, torch.version.cuda or '-', torch.cuda.device_count() if torch.cuda.is_available() else 0)"
TIMEOUT = (3, 20)  # seconds to connect, to answer


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `do_next` says what to do about a problem."""

    state: Literal["ok", "note", "problem"]
    what: str
    do_next: str = ""


class ClusterApi:
    """Requests to a Kubernetes API server by path, as plain data. Raises ApiException; urllib3's errors where it is not reached."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        api.configuration.retries = False

    @classmethod
    def connect(cls, context: str | None) -> ClusterApi:
        """A context of the kubeconfig, the current one if none is named. Raises InputError if there is none."""
        return cls(api_client(context))

    @property
    def host(self) -> str:
        return str(self._api.configuration.host)

    def text(self, method: str, path: str, body: Object | None = None) -> str:
        path, _, query = path.partition("?")
        parameters = [tuple(part.split("=", 1)) for part in query.split("&") if part]
        headers = {"Accept": "*/*", "Content-Type": "application/json"}
        response = self._api.call_api(
            path,
            method,
            query_params=parameters,
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=TIMEOUT,
        )
        return str(response.data.decode(errors="replace"))

    def __call__(self, method: str, path: str, body: Object | None = None) -> Object:
        answer: Object = json.loads(self.text(method, path, body))
        return answer


def check_here() -> Iterator[Check]:
    """This machine: Python, torch, GPUs."""
    yield Check("ok", f"Python {platform.python_version()} on {platform.machine()}, {platform.system()}")
    try:
        ran = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True, timeout=120, encoding="utf-8")
    except subprocess.TimeoutExpired:
        yield Check("problem", "importing torch takes more than two minutes", "Look at the disk that it is installed on.")
        return
    if ran.returncode:
        missing = "No module named 'torch'" in ran.stderr
        words = "torch is not installed: this machine can drive a cluster, not compute" if missing else ran.stderr.strip().splitlines()[-1]
        advice = "To compute here: pip install 'edm2[compute]'." if missing else "Install torch again."
        yield Check("note" if missing else "problem", words, advice)
        return
    version, cuda, gpus = ran.stdout.split()
    yield Check("ok", f"torch {version}, CUDA {cuda}")
    if gpus == "0":
        yield Check("note", "torch sees no GPU: work here runs on the CPU")
    else:
        yield Check("ok", f"torch sees {gpus} GPUs")


def check_store(uri: str) -> Iterator[Check]:
    """A store: reached, read and written, and of two writers of one object only the first wins."""
    try:
        store = open_store(uri)
        path = f"doctor/{uuid.uuid4().hex}"
        yield Check("ok", f"the store {store.uri} is reached")
        try:
            first, second = store.create(path, b"1"), store.create(path, b"2")
            kept = store.read(path)
        finally:
            store.delete(path)
    except EdmError as error:
        yield Check("problem", f"store: {error.what} ({error.where or uri})", error.do_next)
        return
    yield Check("ok", "the store can be written, read and deleted from")
    if (first, second, kept) == (True, False, b"1"):
        yield Check("ok", "the store refuses a second writer (conditional put)")
    else:
        advice = "Use a server that honours If-None-Match: MinIO, SeaweedFS 3.9 or newer, AWS."
        yield Check("problem", "the store let a second writer replace the first one's object, so results could be overwritten", advice)


def check_api(api: ClusterApi) -> Check:
    """Whether the API server answers."""
    try:
        version = api("GET", "/version")
    except ApiException as error:
        return Check("problem", f"the API server {api.host} does not let you in: {words(error)}", "Log in again, or name another context.")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = type(error).__name__
        return Check("problem", f"the API server {api.host} cannot be reached ({reason})", "Check the network, the VPN, the context.")
    return Check("ok", f"the API server {api.host} answers: Kubernetes {version.get('gitVersion')}")


def check_cluster(api: ClusterApi, profile: Profile | None) -> Iterator[Check]:
    """A cluster, as far as can be seen without starting anything in it; with a profile also what its pods need."""
    yield from _operator(api)
    if profile is not None:
        yield from _namespace(api, profile)
        yield from _named(api, profile)
        yield from _rights(api, profile, RIGHTS, "k8s/base")
        yield from _bound(api, profile)
    yield from _nodes(api, profile)
    yield from _pipelines(api, profile)


def _operator(api: ClusterApi) -> Iterator[Check]:
    group, version = API.split("/")
    try:
        known = {resource["name"] for resource in api("GET", f"/apis/{API}")["resources"]}
    except ApiException:
        known = set()
    if PLURAL not in known:
        advice = "Install the Kubeflow training operator 1.9 (docs/operations.md), or Kubeflow itself."
        yield Check("problem", f"the cluster knows no PyTorchJob ({PLURAL}.{group}, version {version})", advice)
        return
    yield Check("ok", f"the cluster knows PyTorchJob, version {version}")
    try:
        found = api("GET", "/apis/apps/v1/deployments?labelSelector=app.kubernetes.io/name=training-operator")["items"]
        found = found or [api("GET", "/apis/apps/v1/namespaces/kubeflow/deployments/training-operator")]
    except ApiException as error:
        yield Check("note", f"the training operator cannot be looked at: {words(error)}")
        return
    image = found[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    if found[0].get("status", {}).get("readyReplicas"):
        yield Check("ok", f"the training operator runs: {image}")
    else:
        where = found[0]["metadata"]
        advice = f"kubectl -n {where['namespace']} describe deployment {where['name']}"
        yield Check("problem", f"the training operator ({image}) is not ready, so jobs would wait without a word", advice)


def _namespace(api: ClusterApi, profile: Profile) -> Iterator[Check]:
    namespace, apply = profile.namespace, "kubectl apply -k k8s/overlays/… (docs/operations.md) makes it."
    try:
        labels = api("GET", f"/api/v1/namespaces/{namespace}")["metadata"].get("labels", {})
    except ApiException as error:
        yield Check(
            "problem" if error.status == 404 else "note", f"namespace {namespace}: {words(error)}", apply if error.status == 404 else ""
        )
        if error.status == 404:
            return
    else:
        enforced = labels.get("pod-security.kubernetes.io/enforce", "nothing")
        yield Check("ok", f"the namespace {namespace} is there; PodSecurity enforces {enforced}")
    needed = [("serviceaccounts", name) for name in (profile.service_accounts.job, profile.service_accounts.control)]
    for kind, name in [*needed, *([("secrets", profile.store.secret)] if profile.store.secret else [])]:
        try:
            found = api("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except ApiException as error:
            yield Check(
                "problem" if error.status == 404 else "note", f"{kind} {name}: {words(error)}", apply if error.status == 404 else ""
            )
            continue
        missing = [key for key in profile.store.secret_env.values() if key not in found.get("data", {})] if kind == "secrets" else []
        if missing:
            yield Check(
                "problem", f"the Secret {name} has no key {' and no key '.join(missing)}", "Add it, or name its keys in the profile."
            )
        else:
            yield Check("ok", f"{kind} {name} is there")


def _named(api: ClusterApi, profile: Profile) -> Iterator[Check]:
    """What else the profile names that has to be there, or no pod is made: it would be said by every job in turn."""
    namespace, classes = profile.namespace, profile.priority_classes
    overlay, other = "k8s/overlays/gpu makes edm2-training and edm2-evaluation.", "Make it, or take it out of the profile."
    wanted = [
        *(
            ("PriorityClass", "/apis/scheduling.k8s.io/v1/priorityclasses", name, overlay)
            for name in (classes.training, classes.evaluation)
        ),
        *(("Secret for pulling images", f"/api/v1/namespaces/{namespace}/secrets", name, other) for name in profile.images.pull_secrets),
        ("LocalQueue of Kueue", f"/apis/kueue.x-k8s.io/v1beta1/namespaces/{namespace}/localqueues", profile.queue, other),
    ]
    for kind, path, name, advice in wanted:
        if name is None:
            continue
        try:
            api("GET", f"{path}/{name}")
        except ApiException as error:
            if error.status == 404:
                yield Check("problem", f"the profile names the {kind} {name}, which is not there", advice)
            else:
                yield Check("note", f"{kind} {name}: {words(error)}")
        else:
            yield Check("ok", f"{kind} {name} is there")


def _rights(api: ClusterApi, profile: Profile, rights: tuple[Right, ...], granted_by: str) -> Iterator[Check]:
    """Asked about the pods' account: what the person who asks may do says nothing about it."""
    namespace, account = profile.namespace, profile.service_accounts.control
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    missing = []
    for group, resource, verb, name in rights:
        kind, _, sub = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": kind, "subresource": sub, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
            "spec": {"user": f"system:serviceaccount:{namespace}:{account}", "groups": groups, "resourceAttributes": attributes},
        }
        try:
            answer = api("POST", f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews", review)
        except ApiException as error:
            yield Check("note", f"the rights of {account} cannot be asked for: {words(error)}", "Let somebody run this who administers it.")
            return
        if not answer["status"].get("allowed"):
            missing.append(f"{verb} {resource} {name}".rstrip())
    if missing:
        yield Check("problem", f"{account} may not: {', '.join(missing)}", f"Apply {granted_by}, or add them to its Role.")
    else:
        yield Check("ok", f"{account} has all {len(rights)} rights that {granted_by} grants")


def _bound(api: ClusterApi, profile: Profile) -> Iterator[Check]:
    """Whether jobs of the control account are held to one account and to the store's Secret, and to those that the profile names."""
    policy, account, secret = "edm2-jobs", profile.service_accounts, profile.store.secret
    try:
        api("GET", f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{policy}")
        allowed = api("GET", f"/api/v1/namespaces/{profile.namespace}")["metadata"].get("annotations", {})
    except ApiException as error:
        said = f"no admission policy {policy}: {account.control} could run pods under any account of {profile.namespace}"
        advice = "Let an administrator of the cluster apply k8s/components/admission (docs/operations.md)."
        yield Check("note", said, advice) if error.status == 404 else Check("note", f"the admission policy {policy}: {words(error)}")
        return
    admitted, secrets = allowed.get("edm2/job-account", "edm2-job"), allowed.get("edm2/job-secrets", "edm2-store").split(",")
    if admitted != account.job or (secret and secret not in secrets):
        said = f"the admission policy {policy} admits jobs under {admitted} with the Secrets {', '.join(secrets)} alone"
        names = f"edm2/job-account={account.job} edm2/job-secrets={secret or ''}"
        yield Check("problem", said, f"kubectl annotate --overwrite namespace {profile.namespace} {names}")
    else:
        yield Check("ok", f"jobs of {account.control} are held to {account.job} and the store's Secret ({policy})")


def _nodes(api: ClusterApi, profile: Profile | None) -> Iterator[Check]:
    wanted = max((profile.resources_of(stage).gpus for stage in STAGES), default=0) if profile else 0
    try:
        nodes = api("GET", "/api/v1/nodes")["items"]
    except ApiException as error:
        yield Check("note", f"the nodes cannot be looked at: {words(error)}")
        return
    gpus = {node["metadata"]["name"]: int(node["status"]["allocatable"].get(GPU, 0)) for node in nodes if _usable(node)}
    if wanted > max(gpus.values(), default=0):
        most = max(gpus.values(), default=0)
        advice = "Set fewer `gpus` and more `nodes` in the profile, or install the GPU operator of the nodes' maker."
        yield Check("problem", f"the profile asks for {wanted} GPUs in a pod; the largest usable node has {most}", advice)
    if not any(gpus.values()):
        yield Check("ok" if profile and not wanted else "note", f"{len(gpus)} of {len(nodes)} nodes are usable; none has GPUs")
        return
    try:
        used = gpus_used(api("GET", "/api/v1/pods?fieldSelector=status.phase!=Succeeded,status.phase!=Failed")["items"])
    except ApiException as error:
        yield Check("note", f"who uses the GPUs cannot be seen: {words(error)}")
        used = {}
    for name, count in gpus.items():
        if count:
            free = count - used.get(name, 0)
            yield Check("ok" if free >= wanted else "note", f"node {name}: {free} of {count} GPUs are free")


def gpus_used(pods: list[Object]) -> dict[str, int]:
    """GPUs that pods hold, by node."""
    used: dict[str, int] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node:
            held = sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in pod["spec"]["containers"])
            used[node] = used.get(node, 0) + held
    return used


def _usable(node: Object) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
    return ready and not node["spec"].get("unschedulable")


def _pipelines(api: ClusterApi, profile: Profile | None) -> Iterator[Check]:
    host = profile.kfp.host if profile else None
    namespace = profile.kfp.namespace if profile else "kubeflow"
    try:
        if host:
            found = urllib3.PoolManager(retries=False, timeout=10).request("GET", f"{host.rstrip('/')}/apis/v2beta1/healthz")
            if unlike := unlike_json(found.data, found.status, found.headers):
                said = f"what answers at {host} is not the API of Kubeflow Pipelines: it is {unlike} (HTTP {found.status})"
                yield Check("problem", said, "Log in, if that is what it asks for; or set `kfp.host` in the profile past it.")
                return
            answer = json.loads(found.data)
        else:
            answer = api("GET", f"/api/v1/namespaces/{namespace}/services/http:ml-pipeline:8888/proxy/apis/v2beta1/healthz")
    except ApiException as error:
        if error.status == 404:
            yield Check("note", f"no Kubeflow Pipelines in namespace {namespace}", "`edm2 run --cluster` needs none; `edm2 submit` does.")
        else:
            yield Check(
                "note", f"Kubeflow Pipelines cannot be looked at: {words(error)}", "Name its URL as `kfp: {host: …}` in the profile."
            )
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        yield Check(
            "problem",
            f"Kubeflow Pipelines at {host or namespace} does not answer ({type(error).__name__})",
            "Check `kfp.host` in the profile.",
        )
    else:
        version = next(
            (str(answer[name]) for name in ("tag_name", "tagName", "apiServerTagName") if answer.get(name)), "of unknown version"
        )
        yield Check("ok", f"Kubeflow Pipelines answers: {version}")
        if profile is None:
            return
        if answer.get("multi_user") is False and profile.namespace != namespace:
            said = f"Kubeflow Pipelines is installed for one user: it runs all pods in {namespace}, not in {profile.namespace}"
            yield Check("problem", said, f"Set `namespace: {namespace}` in the profile.")
        yield from _rights(api, profile, KFP_RIGHTS, "k8s/components/kfp")


def words(error: ApiException) -> str:
    """What the API server says, without its envelope."""
    try:
        return str(json.loads(error.body)["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError):
        return f"HTTP {error.status} {error.reason}"
