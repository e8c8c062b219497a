"""How many GPUs one training can use well, by a model of what it costs to bring their gradients together. Nothing of it is measured."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edm2core.config.settings import OwnNetworkSettings, TrainingSettings
from edm2core.plan.network_cost import Cost
from edm2core.plan.tasks import Task
from pipelines.estimate import TRAINING, UTILISATION, Gpu, cost_of_network

BACKWARD = 2 / 3  # of a step's computing; the reduction of a layer's gradients runs beside the rest of it
FIRST_BUCKET = 1 << 20  # bytes: torch's first bucket, and so what is reduced last is at least this
LATENCY = 20e-6  # seconds of a ring's step on NVLink or InfiniBand, with its kernel
NETWORKS = {"NVLink, 150 GB/s": 150e9, "400 Gbit/s": 40e9, "100 Gbit/s": 10e9}  # what a GPU gets of it, bytes/s
USEFUL = 0.8  # the least part of a step that computes, on a number of GPUs that counts as useful


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
        point = task.subject.sweep
        recipe = point.training if point else task.subject.recipe
        if recipe in batches:
            continue
        training, cost = TrainingSettings.model_validate(task.settings["training"]), cost_of_network(task, measured)
        if cost:
            speed = UTILISATION * (gpu.single if training.precision == "fp32" else gpu.half)
            most = [max_gpus(TRAINING * cost.flops, cost.parameters, training.batch, bandwidth, speed) for bandwidth in NETWORKS.values()]
            batches[recipe] = Batch(recipe, training.batch, tuple(most))
    return list(batches.values())
