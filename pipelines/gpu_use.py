"""How well an experiment uses GPUs, by models of which nothing is measured: how many GPUs one training can use, by what it costs to bring
their gradients together; and how much of the GPU time that pods claim is at work, by the plan's costs, put through its scheduler.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from components.launcher.job import cores
from components.launcher.profile import Profile
from edm2core.config.settings import OwnNetworkSettings, TrainingSettings
from edm2core.plan.manifest import Ref
from edm2core.plan.network_cost import Cost
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from pipelines.estimate import TRAINING, UTILISATION, Estimate, Gpu, cost_of_network
from pipelines.run.task_scheduler import timetable

BACKWARD = 2 / 3  # of a step's computing; the reduction of a layer's gradients runs beside the rest of it
FIRST_BUCKET = 1 << 20  # bytes: torch's first bucket, and so what is reduced last is at least this
LATENCY = 20e-6  # seconds of a ring's step on NVLink or InfiniBand, with its kernel
NETWORKS = {"NVLink, 150 GB/s": 150e9, "400 Gbit/s": 40e9, "100 Gbit/s": 10e9}  # what a GPU gets of it, bytes/s
USEFUL = 0.8  # the least part of a step that computes, on a number of GPUs that counts as useful
CORE = 50e9  # FLOP/s in float32 of a CPU core that does a stage without a GPU
WITHIN, BETWEEN = NETWORKS["NVLink, 150 GB/s"], NETWORKS["400 Gbit/s"]  # bytes/s within a node, and between nodes


class Modelled(NamedTuple):
    """A training step of several GPUs, in seconds: computing alone, all of the reduction, and what of it no backward covers."""

    compute: float
    reduce: float
    exposed: float

    @property
    def efficiency(self) -> float:
        return self.compute / (self.compute + self.exposed)


def modelled(flops: float, parameters: int, images: int, gpus: int, bandwidth: float, speed: float) -> Modelled:
    """A step of `images` a GPU, `flops` each, at `speed` FLOP/s a GPU, with float32 gradients around a ring of `bandwidth` bytes/s.

    A ring's all-reduce sends every byte 2 (n - 1)/n times (Patarasuk & Yuan 2009). It begins when the last layers' gradients are there.
    """
    compute = flops * images / speed
    reduce = 2 * (gpus - 1) * (4 * parameters / gpus / bandwidth + LATENCY) if gpus > 1 else 0.0
    last = reduce * min(FIRST_BUCKET / (4 * parameters), 1.0)
    return Modelled(compute, reduce, max(reduce - BACKWARD * compute, last))


def max_gpus(flops: float, parameters: int, batch: int, bandwidth: float, speed: float) -> int:
    """The most GPUs that share `batch` images evenly and of whose time at least USEFUL computes. `flops` are a step's for one image."""
    even = (gpus for gpus in range(batch, 1, -1) if batch % gpus == 0)
    return next((n for n in even if modelled(flops, parameters, batch // n, n, bandwidth, speed).efficiency >= USEFUL), 1)


class Batch(NamedTuple):
    """How far one recipe's batch can be divided."""

    recipe: str
    images: int
    gpus: tuple[int, ...]  # the most that are useful, for each of NETWORKS


def divided(tasks: Iterable[Task], gpu: Gpu, measured: Mapping[OwnNetworkSettings, Cost]) -> list[Batch]:
    """How many such GPUs each recipe's training can use. `measured` are the costs of networks of own code; others of them are left out."""
    batches = dict[str, Batch]()
    for task in tasks:
        if task.stage != "snapshot":
            continue
        recipe = task.subject.sweep.training if task.subject.sweep else task.subject.recipe
        if recipe not in batches and (cost := cost_of_network(task, measured)):
            training = TrainingSettings.model_validate(task.settings["training"])
            speed = UTILISATION * (gpu.single if training.precision == "fp32" else gpu.half)
            most = [max_gpus(TRAINING * cost.flops, cost.parameters, training.batch, bandwidth, speed) for bandwidth in NETWORKS.values()]
            batches[recipe] = Batch(recipe, training.batch, tuple(most))
    return list(batches.values())


class PodSeconds(NamedTuple):
    """What a pod takes beside its work, in seconds: docs/operations.md says how they were measured."""

    start: float = 15.0  # from its place on a node, with the image there, to its first step
    rendezvous: float = 5.0  # of a job with several processes
    saving: float = 5.0  # from its last step to its end


POD = PodSeconds()


@dataclass(frozen=True)
class Claim:
    """GPU time in seconds that the pods of one stage claim, and what for."""

    pods: int = 0
    work: float = 0.0
    start: float = 0.0
    rendezvous: float = 0.0
    saving: float = 0.0
    waiting: float = 0.0  # for gradients of other GPUs

    @property
    def claimed(self) -> float:
        return self.work + self.start + self.rendezvous + self.saving + self.waiting

    @property
    def share(self) -> float:
        """The part of the claimed time that is at work; 1 if nothing is claimed."""
        return self.work / self.claimed if self.claimed else 1.0

    def __add__(self, other: "Claim") -> "Claim":
        return Claim(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(self)})


@dataclass(frozen=True)
class Claims:
    """The claims of each stage that claims GPUs, how long the run takes, and the most GPUs that it claims at once."""

    stages: Mapping[str, Claim]
    seconds: float
    most_gpus: int

    @property
    def all(self) -> Claim:
        return sum(self.stages.values(), Claim())


def claims(
    plan: Plan,
    costs: Mapping[Ref, Estimate],
    gpu: Gpu,
    profile: Profile,
    measured: Mapping[OwnNetworkSettings, Cost] = {},
    pod: PodSeconds = POD,
) -> Claims:
    """What the experiment claims if its tasks run as jobs of the profile. What is not known of a task's cost counts as no work.

    A training's snapshots share one job, which goes on from one to the next. Every other task has a job of its own.
    """
    stages, seconds, first = dict[str, Claim](), dict[Ref, float](), set[Ref]()
    for task in plan:
        resources, job = profile.resources_of(task.stage), _job(task)
        gpus, pods = resources.gpus * resources.nodes.max, resources.nodes.max * (job not in first)
        several = (resources.processes or max(resources.gpus, 1)) * resources.nodes.max > 1
        beside = (pod.start, pod.rendezvous * several, pod.saving) if job not in first else (0.0, 0.0, 0.0)
        first.add(job)
        work, waiting = _work(task, costs[task.ref], gpu, gpus, resources.nodes.max, measured)
        if gpus:
            start, rendezvous, saving = (gpus * each for each in beside)
            claim = Claim(pods, work, start, rendezvous, saving, waiting)
            stages[task.stage] = stages.get(task.stage, Claim()) + claim
            seconds[task.ref] = claim.claimed / gpus
        else:
            seconds[task.ref] = (costs[task.ref].flops or 0.0) / (CORE * cores(resources.cpu)) + sum(beside)
    times = timetable(list(plan), set(), {}, seconds, profile.jobs)
    return Claims(stages, max((end for _, end in times.values()), default=0.0), _most_gpus(plan, times, profile))


def _job(task: Task) -> Ref:
    return trajectory_ref(task) if task.stage == "snapshot" else task.ref


def _work(task: Task, cost: Estimate, gpu: Gpu, gpus: int, nodes: int, measured: Mapping[OwnNetworkSettings, Cost]) -> tuple[float, float]:
    """GPU seconds of work, and of waiting for gradients."""
    work = cost.seconds(gpu) or 0.0
    network = cost_of_network(task, measured) if task.stage == "snapshot" and gpus > 1 else None
    if network is None:
        return work, 0.0
    training = TrainingSettings.model_validate(task.settings["training"])
    speed, images = UTILISATION * (gpu.half if cost.half else gpu.single), max(training.batch // gpus, 1)
    step = modelled(TRAINING * network.flops, network.parameters, images, gpus, WITHIN if nodes == 1 else BETWEEN, speed)
    return work, work * (1 / step.efficiency - 1)


def _most_gpus(plan: Plan, times: Mapping[Ref, tuple[float, float]], profile: Profile) -> int:
    """The most GPUs that are claimed at once. A training claims its GPUs from its first task's beginning to its last task's end."""
    jobs = dict[Ref, tuple[float, float, int]]()
    for task in plan:
        resources, (begin, end) = profile.resources_of(task.stage), times[task.ref]
        earlier = jobs.get(_job(task), (begin, end, 0))
        jobs[_job(task)] = (min(begin, earlier[0]), max(end, earlier[1]), resources.gpus * resources.nodes.max)
    return max((sum(gpus for begin, end, gpus in jobs.values() if begin <= time < end) for time, _, _ in jobs.values()), default=0)
