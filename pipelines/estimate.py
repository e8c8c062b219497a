"""Estimates what a plan costs, before anything is run: operations, bytes kept, hours on a GPU."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edm2core.config.settings import (
    DiffusionSettings,
    OwnNetworkSettings,
    ProbeSettings,
    SampleSettings,
    TrainingSettings,
    network_settings,
)
from edm2core.diffusion.layout import block_widths
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.network_cost import Cost, network_cost
from edm2core.plan.plan import Plan
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.registry import EXTRACTORS, FORMATS, Extractor, is_own
from edm2core.report.evaluations import sampler_of

UTILISATION = 0.35  # the part of a GPU's peak that training and sampling are assumed to reach: docs/explanation/performance.md
TRAINING = 3  # the operations of a training step over those of a forward pass: backward takes two
STATES = 2  # how many states a training keeps


class Gpu(NamedTuple):
    """A GPU's peak in dense matrix multiplication, in operations a second, from its maker's data sheet."""

    half: float  # bf16 or fp16, summed in float32
    single: float  # float32, or TF32 if the GPU has it


GPUS = {
    "h200": Gpu(989e12, 494e12),
    "h100": Gpu(989e12, 494e12),
    "a100": Gpu(312e12, 156e12),
    "l40s": Gpu(362e12, 183e12),
    "rtx4090": Gpu(165e12, 83e12),
    "v100": Gpu(125e12, 15.7e12),
}


class Images(NamedTuple):
    """How many images a data set has for training and for test."""

    train: int
    test: int


Levels = tuple[float, ...]  # the noise levels at which an own solver evaluates the network


@dataclass(frozen=True)
class Estimate:
    """A task's cost. None stands for what is not known until the data are prepared."""

    flops: float | None = 0.0
    stored: float | None = 0.0  # bytes
    half: bool = False  # whether its operations run in half precision
    averages: float = 0.0  # the bytes of `stored` that hold averages from which others are mixed
    scratch: float | None = 0.0  # bytes in the task's working folder while it runs, beyond its inputs and results

    def seconds(self, gpu: Gpu) -> float | None:
        """How long the task takes on one GPU."""
        peak = gpu.half if self.half else gpu.single
        return None if self.flops is None else self.flops / (peak * UTILISATION)


def estimates(
    tasks: Iterable[Task],
    prepared: Callable[[Ref], Manifest | None],
    counts: Mapping[Ref, Images] = {},
    measured: Mapping[OwnNetworkSettings, Cost] = {},
    levels: Mapping[SampleSettings, Levels] = {},
) -> dict[Ref, Estimate]:
    """Each task's cost. `prepared` finds the manifest of a result that is there already: that of a data set knows the number of images,
    that of samples by an own solver its evaluations.

    `counts` are the images of data sets that were counted before they are prepared, `measured` the costs of networks of own code,
    `levels` those of own solvers by `solver_alone`.
    """
    planner = _Planner(plan := Plan(tuple(tasks)), prepared, counts, measured, levels)
    return {task.ref: planner.estimate(task) for task in plan}


def solver_alone(settings: SampleSettings) -> SampleSettings:
    """Of an own solver's settings those that decide at which noise levels it evaluates the network, all others at their default."""
    names = ("solver", "own", "steps", "schedule", "sigma_min", "sigma_max", "rho")
    return SampleSettings(**{name: getattr(settings, name) for name in names})


def cost_of_network(task: Task, measured: Mapping[OwnNetworkSettings, Cost]) -> Cost | None:
    """What the network of a training costs; None of own code that was not measured."""
    network = network_settings(task.settings["network"])
    if isinstance(network, OwnNetworkSettings):
        return measured.get(network)
    return network_cost(network, DiffusionSettings.model_validate(task.settings["diffusion"]))


@dataclass
class _Planner:
    """Estimates tasks one after the other, by a method for each stage that costs something."""

    plan: Plan
    prepared: Callable[[Ref], Manifest | None]
    counts: Mapping[Ref, Images]
    measured: Mapping[OwnNetworkSettings, Cost]
    levels: Mapping[SampleSettings, Levels]
    begun: set[Ref] = field(default_factory=set)  # trajectories whose states are counted

    def estimate(self, task: Task) -> Estimate:
        of_stage: Callable[[Task], Estimate] = getattr(self, f"_{task.stage}", lambda _: Estimate())
        return of_stage(task)

    def _prepare(self, task: Task) -> Estimate:
        images = self._images(task)
        user = next((user for user in self.plan if user.stage == "snapshot" and user.inputs["data"] == task.ref), None)
        return Estimate(0.0, sum(images) * _pixels(user) if images and user else None)

    def _snapshot(self, task: Task) -> Estimate:
        training, epoch = TrainingSettings.model_validate(task.settings["training"]), task.settings["epoch"]
        cost, images = self._network(task), self._images(task)
        if cost is None:
            return Estimate(None, None, training.precision != "fp32")
        earlier = [*task.after, *(ref for name, ref in task.inputs.items() if name == "start")]
        before = max((self.plan.by_ref[ref].settings["epoch"] or 0 for ref in earlier if ref in self.plan.by_ref), default=0)
        flops = TRAINING * cost.flops * images.train * (epoch - before) if images else None
        widths = len(training.ema_sigma_rel)
        copies = widths + (training.ema_beta is not None)
        averages = 3.0 * cost.parameters * widths * sum(before < stored for stored in training.stored_epochs(epoch))
        stored = 4.0 * cost.parameters * copies + averages
        trajectory = trajectory_ref(task)
        if trajectory not in self.begun:  # a state has the weights, both of Adam's moments, and all averages
            self.begun.add(trajectory)
            stored += STATES * 4.0 * cost.parameters * (3 + copies)
        return Estimate(flops, stored, training.precision != "fp32", averages)

    def _start(self, task: Task) -> Estimate:
        cost = cost_of_network(task, self.measured)
        return Estimate(0.0, 4.0 * cost.parameters * (1 + 3) if cost else None)  # the fixed EMA; the weights and both moments

    def _ema(self, task: Task) -> Estimate:
        cost = self._network(task)
        return Estimate(0.0, 4.0 * cost.parameters if cost else None)

    def _sample(self, task: Task) -> Estimate:
        snapshot, settings, evaluations = self._snapshot_below(task), task.settings, self._evaluations(task, sampler_of(task))
        own, guide = self._network(snapshot), self._network(self.plan.guide_of(task) or snapshot)  # where no other guides, it does itself
        flops = (own.flops * evaluations[0] + guide.flops * evaluations[1]) * settings["count"] if own and guide and evaluations else None
        return Estimate(flops, settings["count"] * _pixels(snapshot), _half(settings))

    def _evaluations(self, task: Task, settings: SampleSettings) -> tuple[int, int] | None:
        """How often the network, and its guide besides, are evaluated for an image; None of an own solver that was not counted.

        Its unguided samples record how many evaluations there were.
        """
        if not is_own(settings.solver):
            guided = settings.guided_evaluations
            return settings.evaluations - guided, guided
        levels = self.levels.get(solver_alone(settings))
        if levels is None:
            made = None if settings.guidance else self.prepared(task.ref)
            return (made.metadata["nfe"], 0) if made and "nfe" in made.metadata else None
        low, high = (settings.guidance and settings.guidance.interval) or (0.0, math.inf)
        return len(levels), sum(low <= level <= high for level in levels) if settings.guidance else 0

    def _reference(self, task: Task) -> Estimate:
        images, extractor = self._images(task), self._extractor_of(task)
        if images is None:
            return Estimate(None, None)
        size = extractor.dimensions
        stored = 8.0 * size * (size + 1) + 4.0 * size * images.train  # mean, covariance and features
        return Estimate(extractor.flops * images.train, stored)

    def _metrics(self, task: Task) -> Estimate:
        if "extractor" not in task.inputs:  # of own code
            return Estimate()
        return Estimate(self._extractor_of(task).flops * self.plan.by_ref[task.inputs["samples"]].settings["count"])

    def _probe(self, task: Task) -> Estimate:
        if "snapshot" not in task.inputs:
            return Estimate()
        settings, images, cost = ProbeSettings.model_validate(task.settings), self._images(task), self._network(task)
        own = network_settings(self._snapshot_below(task).settings["network"])
        if images is None or cost is None:
            return Estimate(None, 0.0, _half(task.settings), scratch=None)
        once = settings.cached_draws * images.train + images.test  # forward passes that compute all features
        if isinstance(own, OwnNetworkSettings):  # the widths of its blocks are known once it is built
            return Estimate(cost.flops * len(set(settings.t)) * once, 0.0, _half(task.settings), scratch=None)
        widths = block_widths(own)
        chosen = widths if settings.blocks == ("all",) else {name: widths[name] for name in set(settings.blocks)}
        levels = len(set(settings.t))
        if settings.cached:
            passes, features = levels * once, levels * sum(chosen.values())
        else:
            extra = bool(settings.knn or settings.few_shot)  # these need the features of the chosen cell
            fresh = len(settings.seeds) * (images.train * settings.epochs + images.test)
            # A chosen cell is trained again on all images if some were held out to choose it.
            passes, features = (levels + settings.holds_out) * fresh + extra * once, extra * max(chosen.values())
        return Estimate(cost.flops * passes, 0.0, _half(task.settings), scratch=once * 2.0 * features)

    def _diagnostics(self, task: Task) -> Estimate:
        images, settings, cost = self._images(task), task.settings, self._network(task)
        if images is None or cost is None:
            return Estimate(None)
        train, test = (min(count, settings["images"]) for count in images)
        return Estimate(cost.flops * (train * (1 + settings["levels"]) + test * settings["levels"]))

    def _snapshot_below(self, task: Task) -> Task:
        """The snapshot that a task stands on."""
        snapshot = self.plan.snapshot_of(task)
        if snapshot is None:
            raise KeyError(task.ref)
        return snapshot

    def _network(self, task: Task) -> Cost | None:
        """What the network costs that a task stands on; None of own code that was not measured."""
        return cost_of_network(self._snapshot_below(task), self.measured)

    def _extractor_of(self, task: Task) -> Extractor:
        return EXTRACTORS[self.plan.by_ref[task.inputs["extractor"]].settings["extractor"]]

    def _images(self, task: Task) -> Images | None:
        """How many images the data of a task have; None if that is not known until they are prepared."""
        task = self.plan.input(task, "data") or task
        known = FORMATS[task.settings["format"]]
        if known.train is not None and known.test is not None:
            return Images(known.train, known.test)
        if known.total is not None:
            test = round(known.total * task.settings["test_share"])
            return Images(known.total - test, test)
        manifest = self.prepared(task.ref)
        counted = self.counts.get(task.ref)
        return Images(manifest.metadata["counts"]["train"], manifest.metadata["counts"]["test"]) if manifest else counted


def _half(settings: Mapping[str, Any]) -> bool:
    """Whether operations with these settings run in half precision."""
    return str(settings["precision"]) != "fp32"


def _pixels(training: Task) -> int:
    """How many numbers an image has, as the network of a training takes it."""
    network = training.settings["network"]
    return int(network["image_channels"] * network["resolution"] ** 2)
