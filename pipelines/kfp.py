"""Compiles a plan into a package for Kubeflow Pipelines: the same tasks, nested by trajectory, inside an exit handler that reports."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.json_format import MessageToDict
from kfp import dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineChannel
from kfp.dsl.pipeline_task import PipelineTask

from components.diagnostics.component import diagnostics
from components.ema.component import ema
from components.extractor.component import extractor, fetch_extractor
from components.launcher.job import cores
from components.launcher.profile import MlflowProfile, Profile
from components.metrics.component import metrics
from components.prepare.component import prepare
from components.probe.component import pixel_probe, probe
from components.record.component import record
from components.record.packed import pack
from components.reference.component import reference
from components.report.component import report
from components.sample.component import sample
from components.snapshot.component import snapshot, started_snapshot
from components.start.component import start
from edm2core.config.experiment import Experiment
from edm2core.errors import InputError
from edm2core.manifest import Ref
from edm2core.plan import Task, trajectory_ref
from pipelines.sources import absent

COMPONENTS: dict[str, Callable[..., None]] = {
    f.__name__: f
    for f in (
        *(prepare, start, snapshot, started_snapshot, ema, sample, extractor, fetch_extractor, reference, metrics, probe, pixel_probe),
        *(diagnostics, record, report),
    )
}
RESULT: dict[str, tuple[str, type]] = {  # a stage's artifact for those who need it: the output's name and type
    "prepare": ("data", dsl.Dataset),
    "start": ("start", dsl.Model),
    "extractor": ("extractor", dsl.Model),
    "reference": ("reference", dsl.Artifact),
    "snapshot": ("snapshot", dsl.Model),
    "ema": ("ema", dsl.Model),
    "sample": ("samples", dsl.Dataset),
}
MOST_TASKS = 240  # the largest plan whose package was measured; Argo keeps it twice in one object, of which etcd takes 1.5 MiB
LARGEST_PART = 2**17 - 2**10  # bytes of a DAG's or a component's JSON, which Kubeflow's driver gets as one argument; Linux takes 128 KiB
ADVICE = (
    "Ask for fewer epochs, seeds or recipes in one experiment (several share what they have in common in one store), "
    "or let this machine drive the cluster with `edm2 run --cluster`."
)
LOCAL_IMAGE = "edm2-compute"  # where there is no profile to name one
SHM = "/dev/shm"  # noqa: S108
CONTROL = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "control"}  # what k8s/base lets through the network
Channels = dict[Ref, PipelineChannel]


def compile(
    tasks: list[Task], experiment: Experiment, run_id: str, profile: Profile | None, store_uri: str, out: Path, max_tasks: int = MOST_TASKS
) -> None:
    """Write the package (YAML) of a plan to `out`.

    Without a profile every task does its work in its own pod, or under kfp.local in its own process.
    Raises InputError for a plan, or a training in it, larger than what is known to fit.
    """
    if len(tasks) > max_tasks:
        raise InputError(
            f"The plan has {len(tasks)} tasks; more than {max_tasks} in one package were never tested, and may not fit into etcd.",
            where=experiment.name,
            do_next=ADVICE,
        )
    pipeline = _Compiler(tasks, experiment, run_id, profile, store_uri).pipeline()
    spec = MessageToDict(pipeline.pipeline_spec)
    platforms = MessageToDict(pipeline.platform_spec)
    _merge_equal(spec, platforms)
    _refuse_too_large(spec, experiment.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(yaml.safe_dump_all([spec, platforms] if platforms else [spec], allow_unicode=True), encoding="utf-8")


class _Compiler:
    """Turns tasks into Kubeflow's: `pipeline` builds the root from `_trajectory` and `_add`."""

    def __init__(self, tasks: list[Task], experiment: Experiment, run_id: str, profile: Profile | None, store_uri: str) -> None:
        self.tasks, self.experiment, self.run_id, self.profile, self.store_uri = tasks, experiment, run_id, profile, store_uri
        self.by_ref = {task.ref: task for task in tasks}
        self.made: dict[tuple[str, str], BaseComponent] = {}

    def pipeline(self) -> BaseComponent:
        trajectories = self._trajectories()
        nested = {ref: self._trajectory(group) for ref, group in trajectories.items()}  # Kubeflow wants them built before they are used
        inside = {task.ref for group in trajectories.values() for task in group}
        shared = [task for task in self.tasks if task.ref not in inside]
        parallel = self.profile.kfp.max_parallel if self.profile else None

        def root(run: str, store: str, profile: str) -> None:
            place = {"run": run, "store": store, "profile": profile}
            last = self._control("report", "report", run=run, store=store)
            if self.profile and self.profile.mlflow:
                _let_log(last, self.profile.mlflow)
            with dsl.ExitHandler(last, name="experiment"):
                packed = pack(self.experiment.name, self.experiment.text, self.tasks, absent(self.experiment))
                first = self._control("record", "record the run", plan=packed, run=run, store=store)
                channels: Channels = {}
                for task in shared:
                    made = self._add(task, place, channels)
                    if not task.needs:
                        made.after(first)
                begun: list[PipelineTask] = []
                for ref, group in trajectories.items():
                    artifacts = {name: channels[need] for name, need in _needs(group).items()}
                    made = nested[ref](**place, **artifacts).set_display_name(_who(group)).set_caching_options(False)
                    if parallel and len(begun) >= parallel:
                        made.after(begun[-parallel])
                    begun.append(made)

        defaults = {"run": self.run_id, "store": self.store_uri, "profile": _portable(self.profile)}
        parameters = [_parameter(name, str, default) for name, default in defaults.items()]
        return _pipeline(_name(self.experiment.name), root, parameters, display_name=self.experiment.name, description=self._description())

    def _description(self) -> str:
        return f"{', '.join(recipe.name for recipe in self.experiment.recipes)}: {len(self.tasks)} tasks. Results: {self.store_uri}"

    def _trajectories(self) -> dict[Ref, list[Task]]:
        """The tasks of each trajectory, in the plan's order; what several share is in none."""
        groups: dict[Ref, list[Task]] = {}
        for task in self.tasks:
            snapshot = task
            while snapshot.stage != "snapshot" and (need := snapshot.inputs.get("snapshot") or snapshot.inputs.get("samples")):
                snapshot = self.by_ref[need]
            if snapshot.stage == "snapshot":
                groups.setdefault(trajectory_ref(snapshot), []).append(task)
        return groups

    def _trajectory(self, group: list[Task]) -> BaseComponent:
        needs = _needs(group)

        def trajectory(run: str, store: str, profile: str, *artifacts: PipelineChannel) -> None:
            place = {"run": run, "store": store, "profile": profile}
            channels: Channels = dict(zip(needs.values(), artifacts, strict=True))
            made: dict[Ref, PipelineTask] = {}
            for task in group:
                made[task.ref] = self._add(task, place, channels)
                made[task.ref].after(*[made[ref] for ref in task.after])

        parameters = [_parameter(name, str) for name in ("run", "store", "profile")]
        parameters += [_parameter(name, dsl.Input[RESULT[ref.stage][1]]) for name, ref in needs.items()]
        return _pipeline(_name(_who(group)), trajectory, parameters)

    def _add(self, task: Task, place: Mapping[str, str], channels: Channels) -> PipelineTask:
        """One of the plan's tasks; its result is put among the channels."""
        in_pod = self.profile is None or self.profile.in_task_pod(task.stage)
        component = self._component(_component_name(task), self._image("compute" if in_pod else "control"))
        text = json.dumps(task.to_json(), separators=(",", ":"), ensure_ascii=False)
        made = component(task=text, **place, **{name: channels[ref] for name, ref in task.inputs.items()})
        made.set_display_name(task.title).set_caching_options(False)
        if self.profile is not None:
            _settle(made, self.profile)
            if in_pod:
                _equip(made, self.profile, task.stage)
            else:
                _keep_small(made)
        if task.stage in RESULT:
            channels[task.ref] = made.outputs[RESULT[task.stage][0]]
        return made

    def _control(self, name: str, title: str, **arguments: Any) -> PipelineTask:
        """A task of Kubeflow's that is none of the plan's."""
        made = self._component(name, self._image("control"))(**arguments).set_display_name(title).set_caching_options(False)
        if self.profile is not None:
            _settle(made, self.profile)
            _keep_small(made)
        return made

    def _image(self, kind: str) -> str:
        return str(getattr(self.profile.images, kind)) if self.profile else LOCAL_IMAGE

    def _component(self, name: str, image: str) -> BaseComponent:
        if (name, image) not in self.made:
            self.made[name, image] = dsl.component(COMPONENTS[name], base_image=image, install_kfp_package=False)
        return self.made[name, image]


def _component_name(task: Task) -> str:
    """The component of the task's stage that takes the task's inputs."""
    if task.stage == "extractor" and not task.inputs:
        return "fetch_extractor"
    if task.stage == "snapshot" and "start" in task.inputs:
        return "started_snapshot"
    return "pixel_probe" if task.stage == "probe" and "snapshot" not in task.inputs else task.stage


def _merge_equal(spec: dict[str, Any], platforms: dict[str, Any]) -> None:
    """Let tasks share a component where theirs are equal; the compiler writes each task's in full, most of a package's size."""
    components, executors = spec["components"], spec["deploymentSpec"]["executors"]
    settings = [platform["deploymentSpec"]["executors"] for platform in platforms.get("platforms", {}).values()]
    first: dict[str, str] = {}
    same: dict[str, str] = {}  # component → the equal one that stays
    for name, component in sorted(components.items(), key=lambda item: (len(item[0]), item[0])):
        if label := component.get("executorLabel"):
            contents = {**component, "executorLabel": [executors[label], *[kind.get(label) for kind in settings]]}
            same[name] = first.setdefault(json.dumps(contents, sort_keys=True), name)
    for dag in (spec["root"], *components.values()):
        for task in dag.get("dag", {}).get("tasks", {}).values():
            reference = task["componentRef"]
            reference["name"] = same.get(reference["name"], reference["name"])
    for name in [name for name, stays in same.items() if name != stays]:
        del components[name]
    labels = {label: f"exec-{name.removeprefix('comp-')}" for name in components if (label := components[name].get("executorLabel"))}
    for component in components.values():
        if "executorLabel" in component:
            component["executorLabel"] = labels[component["executorLabel"]]
    for kind in (executors, *settings):
        kept = {labels[label]: value for label, value in kind.items() if label in labels}
        kind.clear()
        kind.update(kept)


def _refuse_too_large(spec: dict[str, Any], where: str) -> None:
    """Raise InputError if a DAG has more in it than can be handed to what starts it."""
    for name, component in (("root", spec["root"]), *spec["components"].items()):
        size = len(json.dumps(component, separators=(",", ":"), ensure_ascii=False).encode())
        if size > LARGEST_PART:
            tasks = component.get("dag", {}).get("tasks", {})
            raise InputError(
                f"{len(tasks)} tasks of one training ({name.removeprefix('comp-')}) take {size >> 10} KiB in the package, of which "
                f"Kubeflow's driver can be given {LARGEST_PART >> 10}.",
                where=where,
                do_next=ADVICE,
            )


def _settle(task: PipelineTask, profile: Profile) -> None:
    """What every pod needs: the store, and what a namespace that enforces restricted PodSecurity asks for."""
    for name, value in profile.store.env.items():
        task.set_env_variable(name, value)
    if profile.store.secret:
        kubernetes.use_secret_as_env(task, profile.store.secret, {key: name for name, key in profile.store.secret_env.items()})
    kubernetes.set_security_context(task, run_as_user=profile.run_as_user, run_as_group=profile.run_as_user, run_as_non_root=True)
    kubernetes.set_image_pull_policy(task, profile.images.pull_policy)
    if profile.images.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.images.pull_secrets))
    for label, value in CONTROL.items():
        kubernetes.add_pod_label(task, label, value)


def _let_log(task: PipelineTask, server: MlflowProfile) -> None:
    """The environment by which MLflow's client finds its server."""
    task.set_env_variable("MLFLOW_TRACKING_URI", server.uri)
    if server.secret:
        kubernetes.use_secret_as_env(task, server.secret, {key: name for name, key in server.secret_env.items()})


def _keep_small(task: PipelineTask) -> None:
    """Launching, following and reporting need little."""
    task.set_cpu_request("100m").set_cpu_limit("1").set_memory_request("256Mi").set_memory_limit("1Gi")


def _equip(task: PipelineTask, profile: Profile, stage: str) -> None:
    """What a pod needs in which a stage itself runs."""
    resources = profile.resources_of(stage)
    task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu_limit or resources.cpu)
    task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpus:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(resources.gpus)
    kubernetes.empty_dir_mount(task, volume_name="shm", mount_path=SHM, medium="Memory", size_limit=resources.shm)
    kubernetes.empty_dir_mount(task, volume_name="work", mount_path="/work", size_limit=resources.work)
    task.set_env_variable("OMP_NUM_THREADS", str(max(1, int(cores(resources.cpu_limit or resources.cpu)))))
    task.set_env_variable("EDM2_WORK", "/work").set_env_variable("EDM2_CACHE", "/work/cache")
    for label, value in profile.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    if profile.tolerations:
        kubernetes.add_toleration_json(task, [dict(toleration) for toleration in profile.tolerations])


def _needs(group: Iterable[Task]) -> dict[str, Ref]:
    """What a trajectory's tasks read that is made outside of it, each under the name of its artifact (with a number, if it has several)."""
    group = list(group)
    inside = {task.ref for task in group}
    needs: dict[str, Ref] = {}
    for ref in dict.fromkeys(ref for task in group for ref in task.inputs.values() if ref not in inside):
        name = RESULT[ref.stage][0]
        number = sum(other.stage == ref.stage for other in needs.values())
        needs[f"{name}_{number + 1}" if number else name] = ref
    return needs


def _portable(profile: Profile | None) -> str:
    """The profile for a pod, which needs no kubeconfig; it names Secrets and holds none."""
    return profile.model_copy(update={"context": None}).dumps() if profile else ""


def _who(group: list[Task]) -> str:
    """E · seed 0, of a task named E · seed 0 · train to epoch 40."""
    return group[0].title.rsplit(" · ", 1)[0]


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "experiment"


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _pipeline(name: str, body: Callable[..., None], parameters: list[inspect.Parameter], **options: Any) -> BaseComponent:
    """A pipeline whose inputs are decided while compiling: Kubeflow reads them from the function's signature."""
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {}
    pipeline: BaseComponent = dsl.pipeline(name=name, **options)(body)
    return pipeline
