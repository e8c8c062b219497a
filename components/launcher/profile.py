"""A cluster profile: where jobs run and what they get. It changes no result, so no key contains it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, create_model, model_validator

from edm2core.addresses import is_web_url, shown
from edm2core.config.fields import Count, Name, Settings, contradiction, like
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


class Resources(Settings):
    """What one stage's job gets. Every setting but `nodes` is per pod."""

    nodes: Count = 1
    processes: Count | None = None  # none: one per GPU, at least one
    gpus: Annotated[int, Field(ge=0)] = 0
    cpu: Quantity = "1"
    cpu_limit: Quantity | None = None  # none: what is requested
    memory: Quantity = "4Gi"  # both the request and the limit
    shm: Quantity = "1Gi"  # the size of /dev/shm, which counts against memory
    work: Quantity = "10Gi"  # scratch disk of the pod

    @property
    def processes_per_node(self) -> int:
        return self.processes or max(self.gpus, 1)


_each_stage: dict[str, Any] = dict.fromkeys(("default", *STAGES), (Resources, Resources()))
_EachStage = create_model("_EachStage", __base__=Settings, **_each_stage)


class StageResources(_EachStage):
    """The resources of each stage's job. What a stage does not set is as in `default`."""

    default: Resources = Resources()


class StoreProfile(Settings):
    """How pods reach the store; the credentials stay in the Secret."""

    uri: Annotated[str, AfterValidator(_bucket)]
    env: Annotated[dict[str, str], AfterValidator(_no_secrets)] = {}  # such as endpoint and region; no secrets
    secret: Name | None = None  # Secret with the credentials
    secret_env: dict[str, str] = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}  # variable → the Secret's key

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.uri.startswith("minio://") and not {*ENDPOINTS} & {*self.env, *self.secret_env}:
            raise contradiction("it is not said where MinIO is; set EDM2_S3_ENDPOINT there, for example to http://minio:9000", "env")
        return self


class MlflowProfile(Settings):
    """The MLflow server for runs on Kubeflow Pipelines, as pods reach it; the credentials stay in the Secret."""

    uri: Annotated[str, AfterValidator(_server)]
    secret: Name | None = None  # Secret with the credentials
    secret_env: dict[str, str] = {"MLFLOW_TRACKING_USERNAME": "username", "MLFLOW_TRACKING_PASSWORD": "password"}  # as in `store`


class Images(Settings):
    """The two images: `compute` has torch, `control` launches, follows and reads manifests."""

    compute: Image
    control: Image
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: Annotated[tuple[Name, ...], Field(strict=False)] = ()


class ServiceAccounts(Settings):
    """The ServiceAccounts of pods. Pods that compute need no rights at all."""

    job: Name = "edm2-job"
    control: Name = "edm2-control"


class PriorityClasses(Settings):
    """Names of PriorityClasses. Training has the higher one, so that evaluating snapshots never stops the training that makes them."""

    training: Name | None = None
    evaluation: Name | None = None


class Kfp(Settings):
    """Where Kubeflow Pipelines is, and how much of an experiment it runs at once."""

    host: Annotated[str, AfterValidator(_server)] | None = None  # URL of its API; none: through the API server or, in a pod, its Service
    ui: Annotated[str, AfterValidator(_server)] | None = None  # URL of its pages, for links; none: as `host`
    namespace: Name = "kubeflow"  # where Kubeflow Pipelines itself is installed
    max_parallel: Count | None = None  # the most trajectories at once; none: all


class Profile(Settings):
    """A cluster, as this project uses it."""

    name: Name
    context: str | None = None  # of the kubeconfig; none: the current one or, in a pod, the pod's own cluster
    namespace: Namespace
    store: StoreProfile
    images: Images
    service_accounts: ServiceAccounts = ServiceAccounts()
    resources: StageResources = StageResources()
    run_in_task_pod: StageNames = ()  # stages that run in the pod of Kubeflow's task instead of a job, if they need one node
    kfp: Kfp = Kfp()
    mlflow: MlflowProfile | None = None  # for Kubeflow Pipelines; `edm2 run --cluster` uses MLFLOW_TRACKING_URI of its own machine
    queue: Name | None = None  # Kueue's LocalQueue
    priority_classes: PriorityClasses = PriorityClasses()
    tolerations: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    node_selector: dict[str, str] = {}
    patch: dict[str, Any] = {}  # laid over the spec of every job's pods; lists of named things merge by name
    run_as_user: Count = 65532
    jobs: Count = 4  # the most at once, with `edm2 run --cluster`
    patience_s: Seconds = 1800  # how long a pod may be unschedulable; a job that a queue holds waits without limit
    active_deadline_s: Count | None = None  # how long a job may last, restarts included
    ttl_s: Seconds = 3600  # how long a finished job is kept until it is deleted
    grace_s: Count = 120  # how long a pod that is told to end may take to save its state
    hang_s: Count = 30  # how much longer than usual a step may take until its process counts as hung

    def resources_of(self, stage: str) -> Resources:
        """What a stage's job gets: the stage's own settings, and those of `default` where it has none."""
        own: Resources = getattr(self.resources, stage)
        return Resources.model_validate({**self.resources.default.model_dump(), **own.model_dump(exclude_unset=True)})

    def in_task_pod(self, stage: str) -> bool:
        """Whether Kubeflow's task runs the stage in its own pod."""
        return stage in self.run_in_task_pod and self.resources_of(stage).nodes == 1

    def priority_of(self, stage: str) -> str | None:
        """The PriorityClass of a stage's pods."""
        return self.priority_classes.training if stage == "snapshot" else self.priority_classes.evaluation

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
    profile, digests = build(Profile, document), recorded_digests(folder)
    images = {image: digests[tag] for image in ("compute", "control") if (tag := getattr(profile.images, image)) in digests}
    return profile.model_copy(update={"images": profile.images.model_copy(update=images)})


def recorded_digests(folder: Path = FOLDER) -> dict[str, str]:
    """Image named by its tag → the same image named by its digest, as `make images` recorded them in k8s/images.json."""
    file = folder / "images.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
