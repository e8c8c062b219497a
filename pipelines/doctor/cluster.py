"""Checks a cluster before work is sent there, without starting anything in it."""

from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import urllib3

from components.launcher.cluster import KUEUE, ApiServer, ClusterError, choose_kind, kinds_of
from components.launcher.job import cluster_spec, prerequisites, to_manifest
from components.launcher.job_kinds import JobKind, kind_of
from components.launcher.profile import Profile
from edm2core.http_answers import unlike_json
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from pipelines.doctor.machine import Check

Object = dict[str, Any]
GPU = "nvidia.com/gpu"
Right = tuple[str, str, str, str]  # API group, resource, verb, name (none: any)


def _each(*rules: tuple[str, str, tuple[str, ...], str]) -> tuple[Right, ...]:
    return tuple((group, resource, verb, name) for group, resource, verbs, name in rules for verb in verbs)


def rights(kind: JobKind) -> tuple[Right, ...]:
    """The rights of the control pods' ServiceAccount, as k8s/base/role.yaml grants them."""
    return _each(
        (kind.group, kind.plural, ("get", "list", "create", "patch", "delete"), ""),
        ("kueue.x-k8s.io", "workloads", ("list",), ""),
        ("", "pods", ("get", "list", "delete"), ""),
        ("", "pods/log", ("get",), ""),
        ("", "events", ("list",), ""),
    )


KFP_RIGHTS = _each(  # what Kubeflow Pipelines' own machinery does under that account, as k8s/components/kfp grants it
    ("", "configmaps", ("get",), "kfp-launcher"),
    ("", "secrets", ("get",), "mlpipeline-minio-artifact"),
    ("argoproj.io", "workflowtaskresults", ("create", "patch"), ""),
)


def check_api(api: ApiServer) -> Check:
    """Whether the API server answers."""
    try:
        version = api.get("/version")
    except ClusterError as error:
        if error.status:
            said = f"the API server {api.host} does not let you in: {error.said}"
            return Check("problem", said, "Log in again, or name another context.")
        return Check("problem", error.what.rstrip("."), "Check the network, the VPN, the context.")
    return Check("ok", f"the API server {api.host} answers: Kubernetes {version.get('gitVersion')}")


def check_cluster(api: ApiServer, profile: Profile | None) -> Iterator[Check]:
    """Check what can be seen of a cluster without starting anything in it; with a profile also what its pods need."""
    kind = yield from _kind(api, profile)
    if profile is not None:
        profile = profile.model_copy(update={"job": kind.word})
        yield from _namespace(api, profile)
        yield from _named(api, profile)
        yield from _or_note(_queue(api, profile, kind), f"whether Kueue would hold a {kind.name} cannot be tried")
        yield from _rights(api, profile, rights(kind), "k8s/base")
        yield from _bound(api, profile, kind)
    yield from _or_note(_nodes(api, profile), "the nodes cannot be looked at")
    yield from _pipelines(api, profile)


def _or_note(checks: Iterator[Check], what: str, do_next: str = "") -> Iterator[Check]:
    """The checks; a note with the refusal in place of those left if the API server refuses to answer."""
    try:
        yield from checks
    except ClusterError as error:
        yield Check("note", f"{what}: {error.said}", do_next)


def _kind(api: ApiServer, profile: Profile | None) -> Generator[Check, None, JobKind]:
    """Which kinds of job the cluster knows, which of them jobs have, and whether its operator runs; returns that kind."""
    try:
        known = kinds_of(api)
    except ClusterError as error:
        yield Check("problem", f"the kinds of job that the cluster knows cannot be asked for: {error.said}")
        return kind_of(profile)
    if profile is not None and profile.job:
        kind = kind_of(profile)
        if kind not in known:
            others = "".join(f" Or set `job: {other.word}` in the profile, which this cluster knows." for other in known)
            missing = f"the cluster knows no {kind.name} ({kind.plural}.{kind.group}, version {kind.version})"
            yield Check("problem", missing, kind.install + others)
            return kind
    else:
        try:
            kind, choice = choose_kind(known, api.host)
        except ClusterError as error:
            yield Check("problem", error.what.rstrip("."), error.do_next)
            return kind_of(profile)
        yield Check("ok", choice.rstrip("."))
    for each in [kind] if profile else known:
        yield Check("ok", f"the cluster knows {each.name}, version {each.version}")
        yield from _or_note(_operator(api, each), f"{each.operator} cannot be looked at")
    return kind


def _operator(api: ApiServer, kind: JobKind) -> Iterator[Check]:
    """Whether the operator of a kind of job runs, which makes the pods."""
    labelled = api.get("/apis/apps/v1/deployments", labelSelector=f"app.kubernetes.io/name={kind.deployment}")["items"]
    operator = labelled[0] if labelled else api.get(f"/apis/apps/v1/namespaces/kubeflow/deployments/{kind.deployment}")
    image, where = operator["spec"]["template"]["spec"]["containers"][0]["image"], operator["metadata"]
    if operator.get("status", {}).get("readyReplicas"):
        yield Check("ok", f"{kind.operator} runs: {image}")
    else:
        advice = f"kubectl -n {where['namespace']} describe deployment {where['name']}"
        yield Check("problem", f"{kind.operator} ({image}) is not ready, so jobs would wait without a word", advice)


def _look_up(api: ApiServer, what: str, path: str, advice: str, missing: str = "") -> tuple[Object, Check]:
    """An object that has to exist, and the check of it: a problem (`missing`) if it does not exist, a note if it cannot be seen."""
    try:
        return api.get(path), Check("ok", f"{what} is there")
    except ClusterError as error:
        said = f"{what}: {error.said}"
        return {}, Check("problem", missing or said, advice) if error.status == 404 else Check("note", said)


def _namespace(api: ApiServer, profile: Profile) -> Iterator[Check]:
    """Whether the namespace exists, with the accounts and the Secret in it."""
    path, apply = f"/api/v1/namespaces/{profile.namespace}", "kubectl apply -k k8s/overlays/… (docs/how-to/cluster.md) makes it."
    namespace, check = _look_up(api, f"namespace {profile.namespace}", path, apply)
    if check.state == "ok":
        enforced = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "nothing")
        check = Check("ok", f"the namespace {profile.namespace} is there; PodSecurity enforces {enforced}")
    yield check
    if check.state == "problem":
        return
    for account in (profile.service_accounts.job, profile.service_accounts.control):
        yield _look_up(api, f"serviceaccounts {account}", f"{path}/serviceaccounts/{account}", apply)[1]
    if secret := profile.store.secret:
        stored, check = _look_up(api, f"secrets {secret}", f"{path}/secrets/{secret}", apply)
        missing = [key for key in profile.store.secret_env.values() if check.state == "ok" and key not in stored.get("data", {})]
        if missing:
            advice = "Add it, or name its keys in the profile."
            check = Check("problem", f"the Secret {secret} has no key {' and no key '.join(missing)}", advice)
        yield check


def _named(api: ApiServer, profile: Profile) -> Iterator[Check]:
    """Whether everything else exists that the profile, or a TrainJob of it, names. Without it the cluster makes no pod, and each job would
    say so in turn.
    """
    namespace, classes = profile.namespace, profile.priority_classes
    overlay, other = "k8s/overlays/gpu makes edm2-training and edm2-evaluation.", "Make it, or take it out of the profile."
    priorities, secrets = "/apis/scheduling.k8s.io/v1/priorityclasses", f"/api/v1/namespaces/{namespace}/secrets"
    queues = f"/{KUEUE}/namespaces/{namespace}/localqueues"
    named = [
        *(("PriorityClass", priorities, name, overlay) for name in (classes.training, classes.evaluation)),
        *(("Secret for pulling images", secrets, name, other) for name in profile.images.pull_secrets),
        ("LocalQueue of Kueue", queues, profile.queue, other),
    ]
    for kind, path, name, advice in named:
        if name is not None:
            missing = f"the profile names the {kind} {name}, which is not there"
            yield _look_up(api, f"{kind} {name}", f"{path}/{name}", advice, missing)[1]
    for runtime in prerequisites(profile):
        name, kind = runtime["metadata"]["name"], runtime["kind"]
        path = f"/apis/{runtime['apiVersion']}/namespaces/{namespace}/{kind.lower()}s/{name}"
        advice = f"edm2 render --runtimes --job {profile.job} --cluster {profile.name} | kubectl apply -f -"
        missing = f"the {kind} {name} is not there, which jobs of this profile name"
        yield _look_up(api, f"{kind} {name}", path, advice, missing)[1]


def _queue(api: ApiServer, profile: Profile, kind: JobKind) -> Iterator[Check]:
    """Whether Kueue would hold a job of the profile, and not ignore its label. Kueue suspends each job that it is to admit.

    The API server is asked to create a job without keeping it.
    """
    if profile.queue is None:
        return
    task = Task("prepare", 1, {}, {}, "doctor", "doctor")
    job = to_manifest(cluster_spec(task, profile.store.uri, profile), profile)
    path = f"/apis/{kind.group}/{kind.version}/namespaces/{profile.namespace}/{kind.plural}"
    if kind.is_suspended(api.create(path, job, dryRun="All")):
        yield Check("ok", f"Kueue holds a {kind.name} of the queue {profile.queue} until it is admitted")
        return
    frameworks = f"{kind.group}/{kind.word}"
    advice = f"Add {frameworks} to integrations.frameworks in Kueue's ConfigMap kueue-manager-config, or set another `job` in the profile."
    yield Check("problem", f"Kueue would ignore the queue {profile.queue}: its integration of {kind.name} is off", advice)


def _rights(api: ApiServer, profile: Profile, needed: tuple[Right, ...], granted_by: str) -> Iterator[Check]:
    """Whether the pods' account has the rights that it needs. The rights of the person who runs doctor do not matter."""
    namespace, account = profile.namespace, profile.service_accounts.control
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    missing = []
    for group, resource, verb, name in needed:
        kind, _, sub = resource.partition("/")
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": kind, "subresource": sub, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "LocalSubjectAccessReview",
            "metadata": {"namespace": namespace},
            "spec": {"user": f"system:serviceaccount:{namespace}:{account}", "groups": groups, "resourceAttributes": attributes},
        }
        try:
            answer = api.create(f"/apis/authorization.k8s.io/v1/namespaces/{namespace}/localsubjectaccessreviews", review)
        except ClusterError as error:
            yield Check("note", f"the rights of {account} cannot be asked for: {error.said}", "Let somebody run this who administers it.")
            return
        if not answer["status"].get("allowed"):
            missing.append(f"{verb} {resource} {name}".rstrip())
    if missing:
        yield Check("problem", f"{account} may not: {', '.join(missing)}", f"Apply {granted_by}, or add them to its Role.")
    else:
        yield Check("ok", f"{account} has all {len(needed)} rights that {granted_by} grants")


def _bound(api: ApiServer, profile: Profile, kind: JobKind) -> Iterator[Check]:
    """Whether the admission policy limits jobs of the control account to the account and the Secret that the profile names."""
    policy, account, secret = kind.policy, profile.service_accounts, profile.store.secret
    try:
        api.get(f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{policy}")
        allowed = api.get(f"/api/v1/namespaces/{profile.namespace}")["metadata"].get("annotations", {})
    except ClusterError as error:
        said = f"no admission policy {policy}: {account.control} could run pods under any account of {profile.namespace}"
        advice = "Let an administrator of the cluster apply k8s/components/admission (docs/explanation/permissions.md)."
        yield Check("note", said, advice) if error.status == 404 else Check("note", f"the admission policy {policy}: {error.said}")
        return
    admitted, secrets = allowed.get("edm2/job-account", "edm2-job"), allowed.get("edm2/job-secrets", "edm2-store").split(",")
    if admitted != account.job or (secret and secret not in secrets):
        said = f"the admission policy {policy} admits jobs under {admitted} with the Secrets {', '.join(secrets)} alone"
        names = f"edm2/job-account={account.job} edm2/job-secrets={secret or ''}"
        yield Check("problem", said, f"kubectl annotate --overwrite namespace {profile.namespace} {names}")
    else:
        yield Check("ok", f"jobs of {account.control} are held to {account.job} and the store's Secret ({policy})")


def _nodes(api: ApiServer, profile: Profile | None) -> Iterator[Check]:
    """Whether usable nodes have the GPUs that the profile asks for, and how many are free."""
    wanted = max((profile.resources_of(stage).gpus for stage in STAGES), default=0) if profile else 0
    nodes = api.get("/api/v1/nodes")["items"]
    gpus = {node["metadata"]["name"]: int(node["status"]["allocatable"].get(GPU, 0)) for node in nodes if _usable(node)}
    if wanted > (most := max(gpus.values(), default=0)):
        advice = "Set fewer `gpus` and more `nodes` in the profile, or install the GPU operator of the nodes' maker."
        yield Check("problem", f"the profile asks for {wanted} GPUs in a pod; the largest usable node has {most}", advice)
    if not any(gpus.values()):
        yield Check("ok" if profile and not wanted else "note", f"{len(gpus)} of {len(nodes)} nodes are usable; none has GPUs")
        return
    try:
        used = gpus_used(api.get("/api/v1/pods", fieldSelector="status.phase!=Succeeded,status.phase!=Failed")["items"])
    except ClusterError as error:
        yield Check("note", f"who uses the GPUs cannot be seen: {error.said}")
        used = Counter()
    for name, count in gpus.items():
        if count:
            free = count - used[name]
            yield Check("ok" if free >= wanted else "note", f"node {name}: {free} of {count} GPUs are free")


def gpus_used(pods: list[Object]) -> Counter[str]:
    """How many GPUs are held by pods, by node."""
    used = Counter[str]()
    for pod in pods:
        if node := pod["spec"].get("nodeName"):
            used[node] += sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in pod["spec"]["containers"])
    return used


def _usable(node: Object) -> bool:
    """Whether the node is ready and takes pods."""
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))
    return ready and not node["spec"].get("unschedulable")


def _pipelines(api: ApiServer, profile: Profile | None) -> Iterator[Check]:
    """Whether Kubeflow Pipelines answers, runs pods in the profile's namespace, and has the rights that it needs there."""
    host = profile.kfp.host if profile else None
    namespace = profile.kfp.namespace if profile else "kubeflow"
    try:
        if host:
            page = urllib3.PoolManager(retries=False, timeout=10).request("GET", f"{host.rstrip('/')}/apis/v2beta1/healthz")
            if unlike := unlike_json(page.data, page.status, page.headers):
                said = f"what answers at {host} is not the API of Kubeflow Pipelines: it is {unlike} (HTTP {page.status})"
                yield Check("problem", said, "Log in, if that is what it asks for; or set `kfp.host` in the profile past it.")
                return
            answer = page.json()
        else:
            answer = api.get(f"/api/v1/namespaces/{namespace}/services/http:ml-pipeline:8888/proxy/apis/v2beta1/healthz")
    except ClusterError as error:
        if error.status == 404:
            yield Check("note", f"no Kubeflow Pipelines in namespace {namespace}", "`edm2 run --cluster` needs none; `edm2 submit` does.")
        else:
            advice = "Name its URL as `kfp: {host: …}` in the profile."
            yield Check("note" if error.status else "problem", f"Kubeflow Pipelines cannot be looked at: {error.said}", advice)
        return
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        yield Check("problem", f"Kubeflow Pipelines at {host} does not answer ({type(error).__name__})", "Check `kfp.host` in the profile.")
        return
    names = ("tag_name", "tagName", "apiServerTagName")
    version = next((str(answer[name]) for name in names if answer.get(name)), "of unknown version")
    yield Check("ok", f"Kubeflow Pipelines answers: {version}")
    if profile is None:
        return
    if answer.get("multi_user") is False and profile.namespace != namespace:
        said = f"Kubeflow Pipelines is installed for one user: it runs all pods in {namespace}, not in {profile.namespace}"
        yield Check("problem", said, f"Set `namespace: {namespace}` in the profile.")
    yield from _rights(api, profile, KFP_RIGHTS, "k8s/components/kfp")
