"""Compiles a plan into packages for Kubeflow Pipelines: its tasks, nested by trajectory and epoch, inside an exit handler that reports.

A package holds every task of its plan. When it runs, its first task reads the store and says which results are missing, and finished tasks
are skipped. If nothing is missing, the exit handler itself is skipped, so the first task writes the report.

The package is composed as plain data (KFP's pipeline_spec.proto), since KFP's own compiler writes a component for each task and knows no
conditions of this kind.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from kfp import dsl

from components.kubeflow import component
from components.launcher.job import cores
from components.launcher.profile import Profile, Resources
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
from pipelines.kubeflow.workflow_size import Size, size_of

LARGEST_PART = 2**17 - 2**10  # the most bytes of a DAG's or component's JSON: a driver's argument, for which Linux allows 128 KiB
LOCAL_IMAGE = "edm2-compute"  # used without a profile
SHM = "/dev/shm"  # noqa: S108
CONTROL = {"app.kubernetes.io/name": "edm2", "app.kubernetes.io/component": "control"}  # labels of pods that k8s/base lets use the network
HANDLER, FIRST, LAST = "exit-handler-1", "record", "report"  # the root's tasks
LIKE_KFPS = "(as kfp.dsl.executor_main does)"  # kfp.local's SubprocessRunner only runs commands with this name in them
STRING = {"parameterType": "STRING"}
OF_A_DAG = {"of": STRING, "plan": STRING}  # the parameters of a DAG inside of the handler
Object = dict[str, Any]
Channels = dict[Ref, Object]  # where a task gets a result from


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
    spec: Object
    platforms: Object
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
            spec, platforms = _Compiler(tasks, experiment, run_id, profile, store_uri, part, shape).documents()
            package = Package(part, tasks, spec, platforms, size_of(spec, platforms))
            if package.size.fits and _largest_part(spec) <= LARGEST_PART:
                return package
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
        own = _with_guides(plan, own)
        if not parts:  # the first part also gets what nothing needs, such as the probe of raw pixels
            needed |= {task.ref for task in shared if task.ref not in needed_at_all}
        parts.append(replace(plan, tasks=(*(task for task in shared if task.ref in needed), *own)))
    return parts


def _with_guides(plan: Plan, tasks: list[Task]) -> list[Task]:
    """The tasks, and those that make their guides, which may be of another epoch or another training."""
    there, guides = {task.ref for task in tasks}, list[Task]()
    for task in tasks:
        guide = plan.input(task, "guide")
        while guide and guide.ref not in there:
            there.add(guide.ref)
            guides.append(guide)
            guide = plan.input(guide, "snapshot")
    return [task for task in plan if task.ref in there] if guides else tasks


def _blocks(plan: Plan) -> dict[tuple[Ref, int], list[Task]]:
    """The tasks of each epoch of each trajectory."""
    blocks: dict[tuple[Ref, int], list[Task]] = {}
    for ref, group in plan.trajectories().items():
        for task in group:
            blocks.setdefault((ref, task.subject.epoch), []).append(task)
    return blocks


@dataclass
class _Compiler:
    """Turns a plan's tasks into Kubeflow's. `documents` builds the root from `_trajectory` and `_add`."""

    tasks: Plan
    experiment: Experiment
    run_id: str
    profile: Profile | None
    store_uri: str
    part: str
    shape: Shape
    components: Object = field(default_factory=dict)
    executors: Object = field(default_factory=dict)
    pods: Object = field(default_factory=dict)  # what Kubernetes is asked for each executor
    named: dict[str, str] = field(default_factory=dict)  # a component's contents → its name

    def documents(self) -> tuple[Object, Object]:
        """The package's specification, and what it asks of Kubernetes (empty without a profile)."""
        self.groups = list(self.tasks.trajectories().values())
        self.owner = {task.ref: number for number, group in enumerate(self.groups) for task in group}  # the trajectory of each result
        self.guided = [{self.owner[ref] for task in group for ref in task.inputs.values() if ref in self.owner} for group in self.groups]
        for number, others in enumerate(self.guided):  # by which other trajectories the samples of each are guided
            others.discard(number)
        self.parallel = self.profile.kfp.max_parallel if self.profile else None
        self.flags = [f"t{number}" for number in range(len(self.groups))]
        packed = Packed.of(self.experiment.name, self.experiment.text, self.tasks, absent(self.experiment), self.part).dumps()
        outputs = ["Output", "plan", *self.flags]  # kfp.local knows an output in a condition only by the name Output
        first = self._component(FIRST, gives=outputs, fixed={"packed": packed}, logs=True)
        last = self._component(LAST, fixed={"part": self.part}, logs=True)
        taken = {_channel(output): {"taskOutputParameter": {"producerTask": FIRST, "outputParameterKey": output}} for output in outputs}
        tasks: Object = {}
        self._experiment(tasks)
        inside = {"inputDefinitions": {"parameters": dict.fromkeys(taken, STRING)}, "dag": {"tasks": tasks}}
        handler = self._share(HANDLER, inside)
        # A pod has no kubeconfig, so the profile names no context. The profile names Secrets, but holds no secret.
        profile = self.profile.model_copy(update={"context": None}).dumps() if self.profile else ""
        defaults = {"run": self.run_id, "store": self.store_uri, "profile": profile}
        place = {name: _input(name) for name in defaults}
        root = {
            FIRST: _task(first, "what is missing", place),
            HANDLER: _task(handler, self.experiment.name, taken, after=[FIRST], unless_done=_channel("Output")),
            LAST: _task(last, "report", place, after=[HANDLER]) | {"triggerPolicy": {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}},
        }
        parameters = {name: {**STRING, "defaultValue": default, "isOptional": True} for name, default in defaults.items()}
        recipes, part = ", ".join(recipe.name for recipe in self.experiment.recipes), f"part {self.part}, " if self.part else ""
        description = f"{recipes}: {part}{len(self.tasks)} tasks. Results: {self.store_uri}"
        name = self.experiment.name
        spec = {
            "schemaVersion": "2.1.0",
            "sdkVersion": f"kfp-{version('kfp')}",
            "pipelineInfo": {"name": _name(name), "displayName": name, "description": description},
            "components": self.components,
            "deploymentSpec": {"executors": self.executors},
            "root": {"inputDefinitions": {"parameters": parameters}, "dag": {"tasks": root}},
        }
        return spec, {"platforms": {"kubernetes": {"deploymentSpec": {"executors": self.pods}}}} if self.pods else {}

    def _experiment(self, tasks: Object) -> None:
        """Add what all trajectories share, and the trajectories, of which each is skipped unless the first task says that it is missing."""
        shared = [task for task in self.tasks if task.ref not in self.owner]
        plan, names, channels = _input(_channel("plan")), named(self.tasks, shared), Channels()
        done = {task.ref: self._add(tasks, task, names[task.ref], {"of": _constant(""), "plan": plan}, channels) for task in shared}
        begun: dict[int, str] = {}
        for number in self._guides_first():
            group, flag = self.groups[number], _channel(self.flags[number])
            waits = [done[need] for need in _needs(group).values() if need in done] + [
                begun[other] for other in sorted(self.guided[number])
            ]
            if self.parallel and len(begun) >= self.parallel:
                waits.append(list(begun.values())[-self.parallel])
            given = {"of": _constant(group[0].whose), "plan": plan, "missing" if self.waited_for else flag: _input(flag)}
            reads = {artifact: channels[ref] for artifact, ref in self._needs(group).items()}
            component, skipped = (self._around(group), "") if self.waited_for else (self._trajectory(group), flag)
            begun[number] = _free(_name(group[0].whose), tasks)
            tasks[begun[number]] = _task(component, group[0].whose, given, reads, waits, skipped)

    @property
    def waited_for(self) -> bool:
        """Whether trajectories wait for others."""
        return bool(self.parallel) or any(self.guided)

    def _guides_first(self) -> list[int]:
        """The numbers of the trajectories, each after those that guide its samples."""
        try:
            return list(TopologicalSorter(dict(enumerate(self.guided))).static_order())
        except CycleError as error:
            names = ", ".join(dict.fromkeys(self.groups[number][0].whose for number in error.args[1]))
            raise InputError(
                f"The samples of these trainings are guided by one another: {names}. Kubeflow runs a training as a whole before the next.",
                where=self.experiment.name,
                do_next="Ask for them in two experiments (they share one store), or use `edm2 run --cluster`.",
            ) from None

    def _trajectory(self, group: list[Task]) -> str:
        """A trajectory's trainings, one after the other, and the evaluations of each snapshot.

        Kubeflow looks a condition's parameter up in the task, kfp.local around it, so it has the same name in both. Every trajectory
        accepts the names of all, so that equal trajectories are one component.
        """
        names, given = named(self.tasks, group), {name: _input(name) for name in OF_A_DAG}
        epochs = dict.fromkeys(task.subject.epoch for task in group) if self.shape.by_epoch else ()
        guides = {ref for task in group for name, ref in task.inputs.items() if name == "guide"}  # which other epochs read
        evaluated = [task for task in group if task.stage != "snapshot" and task.ref not in guides]
        at = {epoch: [task for task in evaluated if task.subject.epoch == epoch] for epoch in epochs}
        evaluations = {epoch: some for epoch, some in at.items() if len(some) > 1}

        def trajectory(tasks: Object, channels: Channels) -> None:
            made: dict[Ref, str] = {}
            for task in group:
                if task.stage == "snapshot" or task.subject.epoch not in evaluations or task.ref in guides:
                    after = [made[ref] for ref in task.after if ref in made]
                    made[task.ref] = self._add(tasks, task, names[task.ref], given, channels, after)
            for epoch, some in evaluations.items():

                def evaluate(tasks: Object, channels: Channels, some: list[Task] = some) -> None:
                    for task in some:
                        self._add(tasks, task, names[task.ref], given, channels)

                reads = {artifact: channels[ref] for artifact, ref in self._needs(some).items()}
                tasks[f"ep-{epoch}"] = _task(self._dag(f"ep-{epoch}", some, OF_A_DAG, evaluate), f"ep {epoch}", given, reads)

        flags = ["missing"] if self.waited_for else map(_channel, self.flags)
        parameters = OF_A_DAG | {flag: {**STRING, "isOptional": True} for flag in flags}
        return self._dag(group[0].whose, group, parameters, trajectory)

    def _around(self, group: list[Task]) -> str:
        """A DAG around that of a trajectory, for others to wait for. It is never skipped, since what waits for a skipped DAG never runs."""
        parameters, whose = {**OF_A_DAG, "missing": STRING}, group[0].whose

        def around(tasks: Object, channels: Channels) -> None:
            reads = {artifact: channels[ref] for artifact, ref in self._needs(group).items()}
            given = {name: _input(name) for name in parameters}
            tasks[_name(whose)] = _task(self._trajectory(group), whose, given, reads, unless_done="missing")

        return self._dag(whose, group, parameters, around)

    def _dag(self, name: str, group: list[Task], parameters: Object, add: Callable[[Object, Channels], None]) -> str:
        """A DAG with these parameters, and an artifact for each result that the group reads from outside. `add` fills in its tasks."""
        needs, tasks = self._needs(group), dict[str, Any]()
        add(tasks, {ref: {"componentInputArtifact": artifact} for artifact, ref in needs.items()})
        artifacts = {artifact: _artifact(_kind(ref)) for artifact, ref in needs.items()}
        return self._share(_name(name), {"inputDefinitions": _filled(parameters=parameters, artifacts=artifacts), "dag": {"tasks": tasks}})

    def _add(self, tasks: Object, task: Task, title: str, given: Object, channels: Channels, after: Iterable[str] = ()) -> str:
        """Add one of the plan's tasks to a DAG, and its result to the channels; returns its name there."""
        own = "" if self.profile and not self.profile.in_task_pod(task.stage) else task.stage
        read = {name: ref for name, ref in task.inputs.items() if ref in channels}
        inputs = {name: _kind(ref) for name, ref in read.items()}
        called = {"values": re.sub(r"[^A-Za-z0-9]+", "_", short_names(self.tasks.measured(task)))} if task.stage == "metrics" else {}
        component = self._component(task.stage, inputs, called, stage=own)
        name, reads = _free(task.stage, tasks), {artifact: channels[ref] for artifact, ref in read.items()}
        tasks[name] = _task(component, title, {"task": _constant(title), **given}, reads, after)
        stage = STAGES[task.stage]
        if stage.kind != "Metrics":  # no task reads those
            channels[task.ref] = {"taskOutputArtifact": {"producerTask": name, "outputArtifactKey": stage.output}}
        return name

    def _needs(self, group: list[Task]) -> dict[str, Ref]:
        """The results from outside that a DAG of these tasks takes as inputs, each under the name of its artifact.

        A guide of another trajectory is none: the whole trajectory waits for the other.
        """
        own = self.owner[group[0].ref]
        needs = {name: ref for name, ref in _needs(group).items() if self.owner.get(ref, own) == own}
        return {name: ref for name, ref in needs.items() if self.shape.origins or ref in self.owner}

    def _component(
        self,
        name: str,
        inputs: Mapping[str, Any] = {},
        called: Mapping[str, str] = {},
        gives: Collection[str] = (),
        fixed: Mapping[str, str] = {},
        stage: str = "",
        logs: bool = False,
    ) -> str:
        """The component of components/<name>/, with these artifacts as inputs; `called` renames its outputs, `gives` names its parameters.

        Parameters that are `fixed` stand in its command. Kubeflow keeps fewer copies of a command than of a task's parameters, and does not
        show it. Its pod does the work of `stage`, or only follows a job if that is empty. With `logs`, it can reach the MLflow server.
        """
        hints = get_type_hints(component(name), vars(dsl), include_extras=True)
        hints.pop("return")
        # Kubeflow takes components for the same if their containers are equal, so every other difference has to be in the command.
        different = ",".join([*inputs, *called.values()])
        container: Object = {
            "image": LOCAL_IMAGE,
            "command": ["python3", "-m", "components.kubeflow", name],
            "args": [
                "{{$}}",
                *([different] if different else []),
                *(f"{key}={value}" for key, value in fixed.items()),
                *([] if self.profile else [LIKE_KFPS]),
            ],
        }
        if self.profile:
            container |= _container(self.profile, stage, logs)
        takes = {parameter: STRING for parameter, kind in hints.items() if kind is str and parameter not in fixed}
        reads = {artifact: _artifact(kind) for artifact, kind in inputs.items()}
        makes = {called.get(output, output): _artifact(kind.__origin__) for output, kind in hints.items() if kind is not str}
        interface = {
            "inputDefinitions": _filled(parameters=takes, artifacts=reads),
            "outputDefinitions": _filled(parameters=dict.fromkeys(gives, STRING), artifacts=makes),
        }
        return self._share(name, interface, container, _pod(self.profile, stage, logs) if self.profile else None)

    def _share(self, name: str, interface: Object, container: Object | None = None, pod: Object | None = None) -> str:
        """The name of a component: that of an equal one, if there is one. Tasks, and whole trajectories, share it."""
        contents = json.dumps([interface, container, pod], sort_keys=True)
        if contents not in self.named:
            self.named[contents] = own = _free(f"comp-{name}", self.components)
            label = f"exec-{own.removeprefix('comp-')}"
            self.components[own] = interface | ({"executorLabel": label} if container else {})
            self.executors |= {label: {"container": container}} if container else {}
            self.pods |= {label: pod} if pod else {}
        return self.named[contents]


def _task(
    component: str, title: str, parameters: Object, artifacts: Mapping[str, Object] = {}, after: Iterable[str] = (), unless_done: str = ""
) -> Object:
    """A task of a DAG. It waits for the tasks `after` and for those that make its artifacts.

    Kubeflow skips it unless its parameter `unless_done`, if it names one, says that something is missing.
    """
    makers = {source["taskOutputArtifact"]["producerTask"] for source in artifacts.values() if "taskOutputArtifact" in source}
    skip = {"condition": f"inputs.parameter_values['{unless_done}'] == '{MISSING}'"} if unless_done else {}
    return {
        "taskInfo": {"name": title},
        "componentRef": {"name": component},
        "cachingOptions": {},  # nothing is cached: the store does that
        **_filled(inputs=_filled(parameters=parameters, artifacts=artifacts), dependentTasks=sorted({*after, *makers}), triggerPolicy=skip),
    }


def _filled(**parts: Any) -> Object:
    """The parts that are not empty."""
    return {name: part for name, part in parts.items() if part}


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with a number if it is taken."""
    return next(free for number in count(1) if (free := f"{name}-{number}" if number > 1 else name) not in taken)


def _input(name: str) -> Object:
    return {"componentInputParameter": name}


def _constant(value: str) -> Object:
    return {"runtimeValue": {"constant": value}}


def _channel(output: str) -> str:
    """The name under which the handler and what is in it get an output parameter of the first task."""
    return f"pipelinechannel--{FIRST}-{output}"


def _artifact(kind: Any) -> Object:
    return {"artifactType": {"schemaTitle": kind.schema_title, "schemaVersion": kind.schema_version}}


def _kind(ref: Ref) -> Any:
    """The type that the artifact of a result has in Kubeflow."""
    return getattr(dsl, STAGES[ref.stage].kind)


def _largest_part(spec: Object) -> int:
    """Bytes of the largest DAG, component or container, as JSON."""
    parts = (spec["root"], *spec["components"].values(), *spec["deploymentSpec"]["executors"].values())
    return max(len(json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode()) for part in parts)


def _container(profile: Profile, stage: str, logs: bool) -> Object:
    """The image, environment and resources of a container. One without a stage gets few."""
    env, image = dict(profile.store.env), profile.images.compute if stage else profile.images.control
    resources = Resources(cpu="100m", cpu_limit="1", memory="1Gi")
    if logs and profile.mlflow:
        env["MLFLOW_TRACKING_URI"] = profile.mlflow.uri
    if stage:
        resources = profile.resources_of(stage)
        threads = max(1, int(cores(resources.cpu_limit or resources.cpu)))
        env |= {"OMP_NUM_THREADS": str(threads), "EDM2_WORK": "/work", "EDM2_CACHE": "/work/cache"}
    amounts: Object = {
        "resourceCpuRequest": resources.cpu,
        "resourceCpuLimit": resources.cpu_limit or resources.cpu,
        "resourceMemoryRequest": resources.memory if stage else "256Mi",
        "resourceMemoryLimit": resources.memory,
    }
    if resources.gpus:
        amounts["accelerator"] = {"resourceType": "nvidia.com/gpu", "resourceCount": str(resources.gpus)}
    return {"image": image, "resources": amounts, **_filled(env=[{"name": name, "value": value} for name, value in env.items()])}


def _pod(profile: Profile, stage: str, logs: bool) -> Object:
    """What Kubernetes is asked for a pod: the store's Secret, what restricted PodSecurity asks for, and what its stage needs."""
    user, secrets = str(profile.run_as_user), [(profile.store.secret, profile.store.secret_env)]
    if logs and profile.mlflow:
        secrets.append((profile.mlflow.secret, profile.mlflow.secret_env))
    volumes: list[Object] = []
    if stage:
        sizes = profile.resources_of(stage)
        volumes = [
            {"volumeName": "shm", "mountPath": SHM, "medium": "Memory", "sizeLimit": sizes.shm},
            {"volumeName": "work", "mountPath": "/work", "sizeLimit": sizes.work},
        ]
    return {
        "securityContext": {"runAsUser": user, "runAsGroup": user, "runAsNonRoot": True},
        "imagePullPolicy": profile.images.pull_policy,
        "podMetadata": {"labels": CONTROL},
        **_filled(
            secretAsEnv=[
                {**_secret(name), "optional": False, "keyToEnv": [{"envVar": variable, "secretKey": key} for variable, key in keys.items()]}
                for name, keys in secrets
                if name
            ],
            imagePullSecret=[_secret(name) for name in profile.images.pull_secrets],
            emptyDirMounts=volumes,
            nodeSelector=_filled(labels=profile.node_selector) if stage else {},
            tolerations=[dict(toleration) for toleration in profile.tolerations] if stage else [],
        ),
    }


def _secret(name: str) -> Object:
    return {"secretName": name, "secretNameParameter": _constant(name)}


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
