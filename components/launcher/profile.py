"""A cluster profile: where jobs run and what they get. It changes no result, so no key contains it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from edm2core.addresses import is_web_url, shown
from edm2core.config.fields import Count, Name, Settings, contradiction, described, like
from edm2core.config.validate import build, unknown
from edm2core.config.yaml_file import load
from edm2core.errors import EdmError, InputError
from edm2core.paths import local_path
from edm2core.plan.stages import STAGES
from edm2core.store import ENDPOINTS, bucket_of, check_endpoint

FOLDER = (Path(__file__).parent / "k8s").resolve()  # in the repository a link to its k8s folder, in a wheel a folder of the package
if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[tuple(STAGES)]
StageNames = Annotated[tuple[StageName, ...], Field(strict=False)]
Seconds = Annotated[int, Field(ge=0)]
Quantity = Annotated[
    str,
    Field(strict=False, coerce_numbers_to_str=True),
    like(r"^\d+(\.\d+)?(m|k|[KMGTP]i|[MGTP])?\Z", "a quantity, such as 2 or 500m (of a CPU), 8Gi or 512Mi (of memory)"),
]
Image = Annotated[str, like(r"^(?!.*://)\w[\w.\-/:@]*\Z", "an image, such as registry.example.com/edm2-compute:1.0")]
Namespace = Annotated[
    str, like(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z", "a namespace: up to 63 lower-case letters, digits and dashes, such as team-a")
]
SECRET = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN$", re.IGNORECASE)  # in the name of a variable that holds a secret


def _in_words(check: Callable[..., Any], *given: str) -> None:
    """Run a check, and raise its EdmError as a ValueError, since pydantic reports a ValueError with the line in the file."""
    try:
        check(*given)
    except EdmError as error:
        raise ValueError(f"{error.what} {error.do_next}") from None


def _bucket(uri: str) -> str:
    _in_words(bucket_of, uri)
    return uri


def _server(address: str) -> str:
    """The address; raises ValueError if it is not a server's URL, or contains a user, a password or a token."""
    if shown(address) != address or "@" in address:
        raise ValueError("must be an address without user, password and query, since it is shown; what is secret goes into a Secret")
    if not is_web_url(address if "://" in address else f"https://{address}"):
        raise ValueError(f"must be a URL, such as http://server:5000; it is {address!r}")
    return address


def _no_secrets(variables: dict[str, str]) -> dict[str, str]:
    """The variables; raises ValueError if one holds a secret, since packages, parameters and jobs show the profile."""
    for name, value in variables.items():
        if SECRET.search(name) or shown(value) != value:
            raise ValueError(f"{name} holds a secret, and a profile is shown: put it into the Secret, and name its key in secret_env")
        if name in ENDPOINTS and value:
            _in_words(check_endpoint, name, value)
    return variables


def _range_of(nodes: object) -> object:
    """A plain number of pods as a range."""
    if isinstance(nodes, dict | NodeRange):
        return nodes
    if type(nodes) is not int or nodes < 1:
        raise PydanticCustomError("must_be", "must be {words}", {"words": "a whole number from 1 on, or a range such as {min: 1, max: 4}"})
    return {"min": nodes, "max": nodes}


class NodeRange(Settings):
    """How many pods a job may have. A training's number may change while it runs."""

    min: Count = described(1, "Fewest pods.")
    max: Count = described(..., "Most pods, and those with which the job begins.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise contradiction(f"the fewest pods, {self.min}, are more than the most, {self.max}", "min", "max")
        return self


class Resources(Settings):
    """What one stage's job gets. Every setting but `nodes` is per pod."""

    nodes: Annotated[NodeRange, BeforeValidator(_range_of)] = described(
        NodeRange(max=1), "Pods of the job, 1 unless set: a number or, for trainings, a range in which it may change while it runs."
    )
    processes: Count | None = described(None, "Processes in each pod; null is one for each GPU, and at least one.")
    gpus: Annotated[int, Field(ge=0)] = described(0, "GPUs of each pod.")
    cpu: Quantity = described("1", "CPUs that each pod requests.")
    cpu_limit: Quantity | None = described(None, "CPUs that each pod may use at most; null is what it requests.")
    memory: Quantity = described("4Gi", "Memory of each pod, both requested and its limit.")
    shm: Quantity = described("1Gi", "Size of /dev/shm in each pod, which counts against its memory.")
    work: Quantity = described("10Gi", "Scratch disk of each pod.")

    @property
    def processes_per_node(self) -> int:
        return self.processes or max(self.gpus, 1)


_each_stage: dict[str, Any] = {
    name: (Resources, described(Resources(), f"What jobs of stage {name} get.")) for name in ("default", *STAGES)
}
_EachStage = create_model("_EachStage", __base__=Settings, **_each_stage)


class StageResources(_EachStage):
    """The resources of each stage's job. What a stage does not set is as in `default`."""

    default: Resources = described(Resources(), "What jobs of every stage get, unless the stage says otherwise.")

    @model_validator(mode="after")
    def _only_trainings_change(self) -> Self:
        for stage in type(self).model_fields:
            nodes = getattr(self, stage).nodes
            if stage != "snapshot" and nodes.min < nodes.max:
                raise contradiction("only trainings save states from which another number of pods can go on", f"{stage}.nodes")
        return self


class StoreProfile(Settings):
    """How pods reach the store; the credentials stay in the Secret."""

    uri: Annotated[str, AfterValidator(_bucket)] = described(..., "Address of the store, such as s3://bucket/prefix.")
    env: Annotated[dict[str, str], AfterValidator(_no_secrets)] = described(
        {}, "Variables without secrets that pods need for the store, such as its endpoint and region."
    )
    secret: Name | None = described(None, "Secret in the namespace that holds the credentials.")
    secret_env: dict[str, str] = described(
        {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"},
        "Variables of credentials, each with its key in the Secret.",
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.uri.startswith("minio://") and not {*ENDPOINTS} & {*self.env, *self.secret_env}:
            raise contradiction("it is not said where MinIO is; set EDM2_S3_ENDPOINT there, for example to http://minio:9000", "env")
        return self


class MlflowProfile(Settings):
    """The MLflow server for runs on Kubeflow Pipelines, as pods reach it; the credentials stay in the Secret."""

    uri: Annotated[str, AfterValidator(_server)] = described(..., "Address of the MLflow server, as pods reach it.")
    secret: Name | None = described(None, "Secret in the namespace that holds the credentials, if the server asks for any.")
    secret_env: dict[str, str] = described(
        {"MLFLOW_TRACKING_USERNAME": "username", "MLFLOW_TRACKING_PASSWORD": "password"},
        "Variables of credentials, each with its key in the Secret.",
    )


class Images(Settings):
    """The two images: `compute` has torch, `control` launches, follows and reads manifests."""

    compute: Image = described(..., "Image with torch, in which tasks compute.")
    control: Image = described(..., "Image without torch, which launches and follows jobs.")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = described("IfNotPresent", "When a node pulls an image.")
    pull_secrets: Annotated[tuple[Name, ...], Field(strict=False)] = described((), "Secrets with the registry's credentials.")


class ServiceAccounts(Settings):
    """The ServiceAccounts of pods. Pods that compute need no rights at all."""

    job: Name = described("edm2-job", "ServiceAccount of pods that compute; it needs no rights.")
    control: Name = described("edm2-control", "ServiceAccount of pods that start and follow jobs.")


class PriorityClasses(Settings):
    """Names of PriorityClasses. Training has the higher one, so that evaluating snapshots never stops the training that makes them."""

    training: Name | None = described(None, "PriorityClass of trainings.")
    evaluation: Name | None = described(None, "PriorityClass of all other jobs.")


class Kfp(Settings):
    """Where Kubeflow Pipelines is, and how much of an experiment it runs at once."""

    host: Annotated[str, AfterValidator(_server)] | None = described(
        None, "URL of the API of Kubeflow Pipelines; null goes through the API server or, in a pod, to its Service."
    )
    ui: Annotated[str, AfterValidator(_server)] | None = described(None, "URL of its pages, for links; null is as `host`.")
    user: Annotated[str, like(r"^[^\s:]+\Z", "a user's name, such as me@example.com")] | None = described(
        None, "User whom requests name in the header kubeflow-userid, past the login of an installation for many users; null sends none."
    )
    namespace: Name = described("kubeflow", "Namespace in which Kubeflow Pipelines itself is installed.")
    max_parallel: Count | None = described(None, "Most trajectories at once; null is all.")


class Profile(Settings):
    """A cluster, as this project uses it."""

    name: Name = described(..., "Name of the profile; unset, it is that of the file.")
    context: str | None = described(None, "Context of the kubeconfig; null is the current one or, in a pod, the pod's own cluster.")
    namespace: Namespace = described(
        ..., "Namespace that jobs run in; with Kubeflow Pipelines for one user it must be that of Kubeflow Pipelines."
    )
    store: StoreProfile = described(..., "How pods reach the store.")
    images: Images = described(..., "The two images.")
    service_accounts: ServiceAccounts = described(ServiceAccounts(), "ServiceAccounts of pods.")
    resources: StageResources = described(StageResources(), "What each stage's job gets.")
    run_in_task_pod: StageNames = described(
        (), "Stages that Kubeflow's task runs in its own pod, without a job and without a queue, if they need one node."
    )
    kfp: Kfp = described(Kfp(), "Where Kubeflow Pipelines is.")
    mlflow: MlflowProfile | None = described(
        None, "MLflow server for runs on Kubeflow Pipelines; `edm2 run --cluster` takes MLFLOW_TRACKING_URI of its own machine."
    )
    job: Literal["pytorchjob", "trainjob"] | None = described(
        None, "Kind of job; null is what the cluster has, and PyTorchJob if it has both."
    )
    queue: Name | None = described(None, "LocalQueue of Kueue, which then decides when a job runs.")
    priority_classes: PriorityClasses = described(PriorityClasses(), "PriorityClasses of jobs.")
    tolerations: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = described((), "Tolerations of job pods.")
    node_selector: dict[str, str] = described({}, "Labels that a job's nodes must have.")
    patch: dict[str, Any] = described({}, "Changes to the spec of every job's pods; lists of named things merge by name, and null deletes.")
    run_as_user: Count = described(65532, "User id under which containers run.")
    jobs: Count = described(4, "Most jobs at once, with `edm2 run --cluster`.")
    patience_s: Seconds = described(1800, "Seconds that a pod may be unschedulable; a job that a queue holds waits without limit.")
    active_deadline_s: Count | None = described(None, "Seconds that a job may last, restarts included; null sets no limit.")
    ttl_s: Seconds = described(3600, "Seconds for which a finished job is kept.")
    grace_s: Count = described(120, "Seconds that a pod has to save its state once it is told to end.")
    rejoin_s: Count = described(120, "Seconds that a job's other pods wait for a lost pod's successor before all are freed.")
    wait_s: Count = described(
        600, "Seconds that a queue may hold a training until it asks for half as many pods, where `nodes` has a range that allows them."
    )
    hang_s: Count = described(30, "Seconds that a step may take beyond the usual until its process counts as hung.")

    def resources_of(self, stage: str) -> Resources:
        """What a stage's job gets: the stage's own settings, and those of `default` where it has none."""
        own: Resources = getattr(self.resources, stage)
        return Resources.model_validate({**self.resources.default.model_dump(), **own.model_dump(exclude_unset=True)})

    def in_task_pod(self, stage: str) -> bool:
        """Whether Kubeflow's task runs the stage in its own pod."""
        return stage in self.run_in_task_pod and self.resources_of(stage).nodes.max == 1

    def dumps(self) -> str:
        """The profile as JSON, for a task that runs elsewhere; `loads` reads it."""
        return self.model_dump_json(exclude_unset=True)

    @classmethod
    def loads(cls, text: str) -> Profile:
        return cls.model_validate_json(text)


def load_profile(name_or_path: str, folder: Path = FOLDER) -> Profile:
    """The bundled profile of that name (k8s/profiles/<name>.yaml), or the one at a path that ends in .yaml.

    Images whose digests are recorded are named by digest. Raises InputError for an unknown name, and for a wrong setting with its line.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = local_path(name_or_path, "--cluster")
    else:
        path = folder / "profiles" / f"{name_or_path}.yaml"
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        if name_or_path not in known:
            words = unknown("cluster profile", name_or_path, name_or_path, known)
            advice = "Name one of the bundled profiles in that folder, or give a path that ends in .yaml."
            raise InputError(words, where=str(path.parent), do_next=advice)
    document = load(path)
    document.values.setdefault("name", path.stem)
    profile, file = build(Profile, document), folder / "images.json"
    if file.exists():  # `make images` records there which image, named by its digest, a tag names
        digests = json.loads(file.read_text(encoding="utf-8"))
        images = {image: digests[tag] for image in ("compute", "control") if (tag := getattr(profile.images, image)) in digests}
        profile = profile.model_copy(update={"images": profile.images.model_copy(update=images)})
    return profile
