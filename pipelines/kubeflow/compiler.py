"""Compiles a plan into packages for Kubeflow Pipelines: its tasks, nested by trajectory and epoch, inside an exit handler that reports.

A package holds every task of its plan. When it runs, its first task reads the store and says which results are missing, and finished tasks
are skipped. If nothing is missing, the exit handler itself is skipped, so the first task writes the report.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from google.protobuf.json_format import MessageToDict
from kfp import dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_channel import PipelineChannel
from kfp.dsl.pipeline_task import PipelineTask

from components.kubeflow import component
from components.launcher.job import cores
from components.launcher.profile import MlflowProfile, Profile
from components.record.component import MISSING
from components.record.plan_parameter import Packed, named
from edm2core.errors import InputError
from edm2core.metrics.names import short_names
from edm2core.plan.experiment import Experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.plan import Plan
from edm2core.plan.stages import STAGES
from edm2core.plan.tasks import Task
from pipelines.inputs.user_files import absent
from pipelines.kubeflow.workflow_size import MOST, Size, size_of

LARGEST_PART = 2**17 - 2**10  # the most bytes of a DAG's or component's JSON: a driver's argument, for which Linux allows 128 KiB
LOCAL_IMAGE = "edm2-compute"  # used without a profile
SHM = "/dev/shm"  # noqa: S108
CONTROL = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "control"}  # labels of pods that k8s/base lets use the network
HOPELESS = 1.4  # a package that is more than this many times too large fits in no shape
HANDLER, FIRST = "exit-handler-1", "record"  # two of the root's tasks, as KFP's compiler names them
LIKE_KFPS = "(as kfp.dsl.executor_main does)"  # kfp.local's SubprocessRunner only runs commands with this name in them
TRAJECTORY = ("of", "plan", "missing")  # the parameters of a trajectory's DAG
Channels = dict[Ref, PipelineChannel]


@dataclass(frozen=True)
class Shape:
    """What a package shows beyond what is necessary."""

    by_epoch: bool  # a DAG for each epoch
    origins: bool  # data, extractor and reference statistics as inputs of every task that reads them


SHAPES = (Shape(True, True), Shape(True, False), Shape(False, False))


@dataclass(frozen=True)
class Package:
    """A compiled package, all of an experiment or a part of it."""

    part: str  # such as "2 of 3"; empty if there is only one
    tasks: Plan
    spec: dict[str, Any]
    platforms: dict[str, Any]
    size: Size

    def write(self, file: Path) -> None:
        """Write the package as YAML."""
        file.parent.mkdir(parents=True, exist_ok=True)
        documents = [self.spec, self.platforms] if self.platforms else [self.spec]
        file.write_text(yaml.safe_dump_all(documents, allow_unicode=True), encoding="utf-8")


def compile(plan: Plan, experiment: Experiment, run_id: str, profile: Profile | None, store_uri: str) -> list[Package]:
    """The packages of a plan: one, or several if the Workflow of one would be larger than Kubernetes takes.

    A plan is split by trajectory, and a trajectory that is too large is split by epoch. Each package has the first of SHAPES that fits, and
    becomes a run of Kubeflow's. All of these have the same `run` parameter and share one store. Without a profile, each task does its work
    in its own pod (with kfp.local in its own process). Raises InputError if the tasks of a single epoch are too many.
    """

    def made(tasks: Plan, part: str) -> Package | None:
        for shape in SHAPES:
            pipeline = _Compiler(tasks, experiment, run_id, profile, store_uri, part, shape).pipeline()
            spec, platforms = MessageToDict(pipeline.pipeline_spec), MessageToDict(pipeline.platform_spec)
            _skip_all(spec)
            _skip_trajectories(spec)
            _merge_equal(spec, platforms)
            package = Package(part, tasks, spec, platforms, size_of(spec, platforms))
            if package.size.fits and _largest_part(spec) <= LARGEST_PART:
                return package
            if package.size.total > HOPELESS * MOST:
                break
        return None

    parts = [plan]
    while True:
        packages = [made(part, f"{number} of {len(parts)}" if len(parts) > 1 else "") for number, part in enumerate(parts, 1)]
        fitting = [package for package in packages if package is not None]
        if len(fitting) == len(parts):
            return fitting
        if any(package is None and len(_blocks(part)) < 2 for package, part in zip(packages, parts, strict=True)):
            raise InputError(
                "The tasks of one epoch are more than one run of Kubeflow Pipelines holds.",
                where=experiment.name,
                do_next="Ask for fewer averages, draws or metrics in one experiment (several share what they have in common in one store), "
                "or let this machine drive the cluster with `edm2 run --cluster`.",
            )
        parts = [half for part, package in zip(parts, packages, strict=True) for half in ([part] if package else halves(part))]


def halves(plan: Plan) -> list[Plan]:
    """Two parts of a plan, each with half of its trajectories or, if it has only one, half of the epochs. What both need is in both."""
    blocks = _blocks(plan)
    trained = list(dict.fromkeys(trajectory for trajectory, _ in blocks))
    by: list[Any] = trained if len(trained) > 1 else list(blocks)
    shared = [task for task in plan if not plan.snapshot_of(task)]
    needed_at_all = {ref for task in plan for ref in task.needs}
    parts: list[Plan] = []
    for group in by[: (len(by) + 1) // 2], by[(len(by) + 1) // 2 :]:
        own = [task for (trajectory, epoch), block in blocks.items() if {trajectory, (trajectory, epoch)} & set(group) for task in block]
        needed = {task.ref for task in plan.standing_on(own)}
        if not parts:  # the first part also gets what nothing needs, such as the probe of raw pixels
            needed |= {task.ref for task in shared if task.ref not in needed_at_all}
        parts.append(replace(plan, tasks=(*(task for task in shared if task.ref in needed), *own)))
    return parts


def _blocks(plan: Plan) -> dict[tuple[Ref, int], list[Task]]:
    """The tasks of each epoch of each trajectory."""
    blocks: dict[tuple[Ref, int], list[Task]] = {}
    for ref, group in plan.trajectories().items():
        for task in group:
            blocks.setdefault((ref, task.subject.epoch), []).append(task)
    return blocks


@dataclass
class _Compiler:
    """Turns a plan's tasks into Kubeflow's. `pipeline` builds the root from `_trajectory` and `_add`."""

    tasks: Plan
    experiment: Experiment
    run_id: str
    profile: Profile | None
    store_uri: str
    part: str
    shape: Shape
    made: dict[str, BaseComponent] = field(default_factory=dict)

    def pipeline(self) -> BaseComponent:
        groups = self.tasks.trajectories()
        self.inside = {task.ref for group in groups.values() for task in group}
        parallel = self.profile.kfp.max_parallel if self.profile else None
        nested = {ref: self._trajectory(group) for ref, group in groups.items()}  # Kubeflow wants them built before they are used
        if parallel:
            nested = {ref: self._around(groups[ref], trajectory) for ref, trajectory in nested.items()}
        shared = [task for task in self.tasks if task.ref not in self.inside]
        packed = Packed.of(self.experiment.name, self.experiment.text, self.tasks, absent(self.experiment), self.part).dumps()
        flags = [f"t{number}" for number in range(len(groups))]

        def root(run: str, store: str, profile: str) -> None:
            place = {"run": run, "store": store, "profile": profile}
            first = self._control(FIRST, "what is missing", ["missing", "plan", *flags], {"packed": packed}, **place)
            last = self._control("report", "report", [], {"part": self.part}, **place)
            if self.profile and self.profile.mlflow:
                for reporting in (first, last):  # the first task writes the report if nothing is missing
                    _let_log(reporting, self.profile.mlflow)
            with dsl.ExitHandler(last, name=self.experiment.name):
                plan = first.outputs["plan"]
                channels: Channels = {}
                names = named(self.tasks, shared)
                done = {task.ref: self._add(task, names[task.ref], "", plan, channels) for task in shared}
                begun: list[PipelineTask] = []
                for flag, (ref, group) in zip(flags, groups.items(), strict=True):
                    artifacts = {name: channels[need] for name, need in self._needs(group).items()}
                    made = nested[ref](of=group[0].whose, plan=plan, missing=first.outputs[flag], **artifacts)
                    made.set_display_name(group[0].whose).set_caching_options(False)
                    made.after(*[done[need] for need in _needs(group).values()])
                    if parallel and len(begun) >= parallel:
                        made.after(begun[-parallel])
                    begun.append(made)

        # A pod has no kubeconfig, so the profile names no context. The profile names Secrets, but holds no secret.
        profile = self.profile.model_copy(update={"context": None}).dumps() if self.profile else ""
        defaults = {"run": self.run_id, "store": self.store_uri, "profile": profile}
        parameters = [_parameter(name, str, default) for name, default in defaults.items()]
        recipes, part = ", ".join(recipe.name for recipe in self.experiment.recipes), f"part {self.part}, " if self.part else ""
        description = f"{recipes}: {part}{len(self.tasks)} tasks. Results: {self.store_uri}"
        return _pipeline(_name(self.experiment.name), root, parameters, display_name=self.experiment.name, description=description)

    def _trajectory(self, group: list[Task]) -> BaseComponent:
        """A trajectory's trainings, one after the other, and the evaluations of each snapshot; skipped unless something is `missing`."""
        names = named(self.tasks, group)
        evaluations = self._evaluations(group, names)

        def trajectory(channels: Channels, of: str, plan: str, missing: str) -> None:
            made: dict[Ref, PipelineTask] = {}
            for task in group:
                if task.stage == "snapshot" or task.subject.epoch not in evaluations:
                    made[task.ref] = self._add(task, names[task.ref], of, plan, channels)
                    made[task.ref].after(*[made[ref] for ref in task.after if ref in made])
            for epoch, dag in evaluations.items():
                needs = self._needs(_evaluations_at(group, epoch))
                evaluated = dag(of=of, plan=plan, **{name: channels[ref] for name, ref in needs.items()})
                evaluated.set_display_name(f"ep {epoch}").set_caching_options(False)

        return self._dag(group[0].whose, group, TRAJECTORY, trajectory)

    def _around(self, group: list[Task], trajectory: BaseComponent) -> BaseComponent:
        """A DAG around that of a trajectory, for others to wait for. It is never skipped, since what waits for a skipped DAG never runs."""

        def around(channels: Channels, **parameters: str) -> None:
            inside = trajectory(**parameters, **{name: channels[ref] for name, ref in self._needs(group).items()})
            inside.set_display_name(group[0].whose).set_caching_options(False)

        return self._dag(group[0].whose, group, TRAJECTORY, around)

    def _evaluations(self, group: list[Task], names: Mapping[Ref, str]) -> dict[int, BaseComponent]:
        """A DAG for each epoch with more than one evaluation of its snapshot."""

        def of_epoch(tasks: list[Task], epoch: int) -> BaseComponent:
            def evaluate(channels: Channels, of: str, plan: str) -> None:
                for task in tasks:
                    self._add(task, names[task.ref], of, plan, channels)

            return self._dag(f"ep-{epoch}", tasks, ("of", "plan"), evaluate)

        epochs = dict.fromkeys(task.subject.epoch for task in group) if self.shape.by_epoch else ()
        return {epoch: of_epoch(tasks, epoch) for epoch in epochs if len(tasks := _evaluations_at(group, epoch)) > 1}

    def _dag(self, name: str, group: list[Task], parameters: tuple[str, ...], body: Callable[..., None]) -> BaseComponent:
        """A DAG with these parameters, and an artifact for each result that the group reads from outside: `body` gets their channels."""
        needs = self._needs(group)

        def dag(*given: Any) -> None:
            body(dict(zip(needs.values(), given[len(parameters) :], strict=True)), **dict(zip(parameters, given, strict=False)))

        artifacts = [_parameter(artifact, dsl.Input[_kind(ref)]) for artifact, ref in needs.items()]
        return _pipeline(_name(name), dag, [*(_parameter(parameter, str) for parameter in parameters), *artifacts])

    def _add(self, task: Task, name: str, of: str, plan: Any, channels: Channels) -> PipelineTask:
        """Add one of the plan's tasks, by its name in the trajectory `of`, and its result to the channels."""
        in_pod = self.profile is None or self.profile.in_task_pod(task.stage)
        read = {name: ref for name, ref in task.inputs.items() if ref in channels}
        inputs = {name: _kind(ref) for name, ref in read.items()}
        called = {"values": _measured(self.tasks, task)} if task.stage == "metrics" else {}
        component = self._component(task.stage, "compute" if in_pod else "control", inputs, called)
        made = component(task=name, of=of, plan=plan, **{name: channels[ref] for name, ref in read.items()})
        made.set_display_name(name).set_caching_options(False)
        if self.profile is not None:
            _settle(made, self.profile, task.stage if in_pod else None)
        stage = STAGES[task.stage]
        if stage.kind != "Metrics":  # no task reads those
            channels[task.ref] = made.outputs[stage.output]
        return made

    def _needs(self, group: list[Task]) -> dict[str, Ref]:
        """The results from outside that a DAG of these tasks takes as inputs, each under the name of its artifact."""
        return {name: ref for name, ref in _needs(group).items() if self.shape.origins or ref in self.inside}

    def _control(self, name: str, title: str, gives: list[str], fixed: Mapping[str, str], **arguments: Any) -> PipelineTask:
        """A task that is not one of the plan's; `gives` names its output parameters."""
        made = self._component(name, "control", gives=gives, fixed=fixed)(**arguments).set_display_name(title).set_caching_options(False)
        if self.profile is not None:
            _settle(made, self.profile, None)
        return made

    def _component(
        self,
        name: str,
        image: str,
        inputs: Mapping[str, type] = {},
        called: Mapping[str, str] = {},
        gives: Iterable[str] = (),
        fixed: Mapping[str, str] = {},
    ) -> BaseComponent:
        """The component of components/<name>/, with these artifacts as inputs; `called` renames its outputs.

        Parameters that are `fixed` stand in its command. Kubeflow keeps fewer copies of a command than of a task's parameters, and does not
        show it.
        """
        hints = get_type_hints(component(name), vars(dsl), include_extras=True)
        hints.pop("return")
        signature = [
            *(_parameter(parameter, str) for parameter, kind in hints.items() if kind is str and parameter not in fixed),
            *(_parameter(read, dsl.Input[kind]) for read, kind in inputs.items()),
            *(_parameter(called.get(output, output), kind) for output, kind in hints.items() if kind is not str),
            *(_parameter(given, dsl.OutputPath(str)) for given in gives),
        ]
        # Kubeflow takes components for the same if their containers are equal, so every other difference has to be in the command.
        different = ",".join([*inputs, *called.values()])
        command = ["python3", "-m", "components.kubeflow", name]
        arguments = [
            "{{$}}",
            *([different] if different else []),
            *(f"{key}={value}" for key, value in fixed.items()),
            *([] if self.profile else [LIKE_KFPS]),
        ]
        image = str(getattr(self.profile.images, image)) if self.profile else LOCAL_IMAGE

        def shape(*_: Any, **__: Any) -> dsl.ContainerSpec:
            return dsl.ContainerSpec(image=image, command=command, args=arguments)

        shape.__name__ = name
        shape.__doc__ = component(name).__doc__
        shape.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        shape.__annotations__ = {parameter.name: parameter.annotation for parameter in signature}
        return self.made.setdefault(json.dumps([*command, image, *arguments, list(gives)]), dsl.container_component(shape))


def _kind(ref: Ref) -> Any:
    """The type that the artifact of a result has in Kubeflow."""
    return getattr(dsl, STAGES[ref.stage].kind)


def _measured(plan: Plan, task: Task) -> str:
    """The name of the artifact of a task that measures samples, such as FID or FD_KID."""
    return re.sub(r"[^A-Za-z0-9]+", "_", short_names(plan.measured(task)))


def _evaluations_at(group: list[Task], epoch: int) -> list[Task]:
    """The evaluations of a trajectory's snapshot of that epoch."""
    return [task for task in group if task.stage != "snapshot" and task.subject.epoch == epoch]


def _skip_all(spec: dict[str, Any]) -> None:
    """Let Kubeflow skip the exit handler, and so all but the first task, if nothing is missing. Its exit task does not run then either.

    The first task's output `missing` is renamed to Output, the only name by which kfp.local knows an output in a condition.
    """
    first = spec["components"][spec["root"]["dag"]["tasks"][FIRST]["componentRef"]["name"]]["outputDefinitions"]["parameters"]
    first["Output"] = first.pop("missing")
    name = f"pipelinechannel--{FIRST}-Output"
    handler = spec["root"]["dag"]["tasks"][HANDLER]
    parameters = handler.setdefault("inputs", {}).setdefault("parameters", {})
    parameters[name] = {"taskOutputParameter": {"producerTask": FIRST, "outputParameterKey": "Output"}}
    handler["triggerPolicy"] = {"condition": f"inputs.parameter_values['{name}'] == '{MISSING}'"}
    inputs = spec["components"][handler["componentRef"]["name"]].setdefault("inputDefinitions", {})
    inputs.setdefault("parameters", {})[name] = {"parameterType": "STRING"}


def _skip_trajectories(spec: dict[str, Any]) -> None:
    """Let Kubeflow skip each trajectory of which the first task says that nothing is missing.

    The parameter `missing` gets the name that it has outside of the trajectory: kfp.local looks it up there, Kubeflow in the task itself.
    Every trajectory accepts the parameters' names of all trajectories, so that equal trajectories stay equal.
    """
    components = spec["components"]
    waiting = [task for dag in components.values() for task in _tasks(dag) if "missing" in task.get("inputs", {}).get("parameters", {})]
    inside = {name for name, dag in components.items() if any(task in waiting for task in _tasks(dag))}
    conditional = [task for task in waiting if task["componentRef"]["name"] not in inside]
    names = {task["inputs"]["parameters"]["missing"]["componentInputParameter"] for task in conditional}
    for task in conditional:
        parameters = task["inputs"]["parameters"]
        name = parameters["missing"]["componentInputParameter"]
        parameters[name] = parameters.pop("missing")
        task["triggerPolicy"] = {"condition": f"inputs.parameter_values['{name}'] == '{MISSING}'"}
        defined = components[task["componentRef"]["name"]]["inputDefinitions"]["parameters"]
        defined.pop("missing", None)
        defined |= {other: {"parameterType": "STRING", "isOptional": True} for other in names}


def _merge_equal(spec: dict[str, Any], platforms: dict[str, Any]) -> None:
    """Let tasks, and whole trajectories, share one component where theirs are equal. KFP's compiler writes one for each task."""
    components, executors = spec["components"], spec["deploymentSpec"]["executors"]
    settings = [platform["deploymentSpec"]["executors"] for platform in platforms.get("platforms", {}).values()]
    same: dict[str, str] = {}  # component → the equal one that stays

    def merge(names: Iterable[str]) -> None:
        first: dict[str, str] = {}
        for name in names:
            label = components[name].get("executorLabel")
            contents = {**components[name], "executorLabel": label and [executors[label], *[kind.get(label) for kind in settings]]}
            same[name] = first.setdefault(json.dumps(contents, sort_keys=True), name)
        for dag in (spec["root"], *components.values()):
            for task in _tasks(dag):
                reference = task["componentRef"]
                reference["name"] = same.get(reference["name"], reference["name"])

    by_depth: dict[int, list[str]] = {}
    for name in sorted(components, key=lambda name: (len(name), name)):
        by_depth.setdefault(_depth(components, name), []).append(name)
    for _, names in sorted(by_depth.items()):  # inner components come before those that contain them
        merge(names)
    for name in [name for name, stays in same.items() if name != stays]:
        del components[name]
    labels = {label: f"exec-{name.removeprefix('comp-')}" for name in components if (label := components[name].get("executorLabel"))}
    for shared in components.values():
        if "executorLabel" in shared:
            shared["executorLabel"] = labels[shared["executorLabel"]]
    for kind in (executors, *settings):
        left = {labels[label]: value for label, value in kind.items() if label in labels}
        kind.clear()
        kind.update(left)


def _tasks(component: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The tasks of a DAG; none of a component that is a container."""
    tasks: dict[str, dict[str, Any]] = component.get("dag", {}).get("tasks", {})
    return tasks.values()


def _depth(components: Mapping[str, Any], name: str) -> int:
    """How many levels of DAGs a component has."""
    return max((1 + _depth(components, task["componentRef"]["name"]) for task in _tasks(components[name])), default=0)


def _largest_part(spec: dict[str, Any]) -> int:
    """Bytes of the largest DAG, component or container, as JSON."""
    parts = (spec["root"], *spec["components"].values(), *spec["deploymentSpec"]["executors"].values())
    return max(len(json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode()) for part in parts)


def _settle(task: PipelineTask, profile: Profile, stage: str | None) -> None:
    """Give a pod the store, what restricted PodSecurity asks for, and the resources of its stage. A pod without a stage gets few."""
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
    if stage:
        _equip(task, profile, stage)
    else:
        task.set_cpu_request("100m").set_cpu_limit("1").set_memory_request("256Mi").set_memory_limit("1Gi")


def _let_log(task: PipelineTask, server: MlflowProfile) -> None:
    """Set the environment by which MLflow's client finds its server."""
    task.set_env_variable("MLFLOW_TRACKING_URI", server.uri)
    if server.secret:
        kubernetes.use_secret_as_env(task, server.secret, {key: name for name, key in server.secret_env.items()})


def _equip(task: PipelineTask, profile: Profile, stage: str) -> None:
    """Give a pod what the stage that runs in it needs."""
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
    """The results from outside that a group of tasks reads, each under the name of its artifact (with a number if there are several)."""
    group = list(group)
    inside = {task.ref for task in group}
    needs: dict[str, Ref] = {}
    for ref in dict.fromkeys(ref for task in group for ref in task.inputs.values() if ref not in inside):
        name = STAGES[ref.stage].output
        number = sum(other.stage == ref.stage for other in needs.values())
        needs[f"{name}_{number + 1}" if number else name] = ref
    return needs


def _name(text: str) -> str:
    """The text as Kubeflow allows it in names."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "experiment"


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation, default=default)


def _pipeline(name: str, body: Callable[..., None], parameters: list[inspect.Parameter], **options: Any) -> BaseComponent:
    """A pipeline with these parameters. Kubeflow reads them from the function's signature."""
    body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    body.__annotations__ = {}
    pipeline: BaseComponent = dsl.pipeline(name=name, **options)(body)
    return pipeline
