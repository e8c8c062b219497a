"""What an experiment takes on this machine, on one screen, by the speeds that the store's runs have measured here."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edm2core import registry
from edm2core.addresses import is_url
from edm2core.errors import EdmError
from edm2core.plan.experiment import Experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import Plan
from edm2core.plan.stages import STAGES, in_words
from edm2core.plan.tasks import Task, trajectory_ref
from edm2core.provenance.origin import describe
from edm2core.store.base import Store
from edm2core.store.results import manifests
from edm2core.store.runs import load_plan
from edm2core.store.summary import listing
from edm2core.words import duration, size
from pipelines.estimate import GPUS, UTILISATION, Estimate, Gpu, Images, estimates
from pipelines.run.places import gpus, here
from pipelines.run.task_scheduler import time_left

LATEST = 5  # runs whose speeds are looked at
WIDTH = 76  # characters of a line of names
GPU_FACTS = Path("/proc/driver/nvidia/gpus")


@dataclass
class Speed:
    """What tasks of a stage took here."""

    flops: float = 0.0
    seconds: float = 0.0
    tasks: int = 0

    def of(self, cost: Estimate) -> float | None:
        """Seconds that a task of this cost takes: by its operations, or as long as others if it has none; None if they are not known."""
        if cost.flops is None:
            return None
        return cost.flops * self.seconds / self.flops if self.flops else self.seconds / self.tasks


Speeds = Mapping[str, Speed]


def summary(experiment: Experiment, plan: Plan, store: Store, made: Mapping[Ref, Manifest]) -> list[str]:
    """The lines of the summary. `made` are the results that the store has."""
    costs = estimates(plan, made.get, counted(experiment, plan))
    device, speeds = device_here(), speeds_here(store)
    left = [task for task in plan if task.ref not in made]
    took = {task.ref: _seconds(task, costs[task.ref], speeds, device) for task in plan}
    place = here(store.uri)
    lines = [
        f"{experiment.name}: {len(plan)} tasks, {len(plan) - len(left)} of them in {store.uri} already.",
        _listed("recipes", [recipe.name for recipe in experiment.recipes]),
        _listed("seeds", map(str, experiment.seeds)),
        _listed("epochs", [str(epoch) for epoch in sorted({epoch for epochs in experiment.epochs.values() for epoch in epochs})]),
        _listed("metrics", dict.fromkeys(metric.label for metrics in experiment.metrics.values() for metric in metrics)),
        "",
        f"{'':24}{'to do':>8}{'PFLOP':>10}{'time':>16}   speed",
        *(_stage(stage, left, costs, took, speeds, device) for stage in dict.fromkeys(task.stage for task in plan)),
        "",
    ]
    kept = [costs[task.ref].stored for task in left]
    lines.append(f"To keep: {size(sum(k for k in kept if k is not None))}{' and the prepared data' if None in kept else ''}.")
    return [*lines, *_total(plan, made, took, place.jobs, device)]


def _total(plan: Plan, made: Mapping[Ref, Manifest], took: Mapping[Ref, float | None], jobs: int, device: str) -> list[str]:
    """How long the run takes here."""
    left = [task for task in plan if task.ref not in made]
    if not left:
        return ["Nothing is left to do: `edm2 run` writes the report again."]
    unknown = list(dict.fromkeys(in_words(task.stage) for task in left if took[task.ref] is None))
    seconds = time_left(list(plan), set(made), {}, {ref: value or 0.0 for ref, value in took.items()}, jobs)
    at_once = f"{jobs} task{'s' * (jobs > 1)} at once"
    if len(unknown) == len({task.stage for task in left}):
        return [f"Not measured on {_this(device)} ({device}) yet: no time is known.", "The first run in this store measures it."]
    least = "more than " * bool(unknown)
    lines = [f"On this machine ({device}, {at_once}): {least}{duration(seconds)}."]
    return lines + [f"Not measured on {_this(device)}: {', '.join(unknown)}."] * bool(unknown)


def _stage(
    stage: str, left: Sequence[Task], costs: Mapping[Ref, Estimate], took: Mapping[Ref, float | None], speeds: Speeds, device: str
) -> str:
    own = [task for task in left if task.stage == stage]
    flops = _sum((costs[task.ref].flops for task in own), lambda flops: f"{flops / 1e15:,.3g}")
    time = _sum((took[task.ref] for task in own), duration)
    return f"{in_words(stage):24}{len(own):>8}{flops:>10}{time:>16}   {_how(stage, speeds, device)}"


def _how(stage: str, speeds: Speeds, device: str) -> str:
    """Where a stage's speed comes from."""
    if stage in speeds:
        return f"measured in {speeds[stage].tasks} task{'s' * (speeds[stage].tasks > 1)} here"
    assumed = f"; assumed {UTILISATION:.0%} of its peak" if STAGES[stage].imports_torch and peak_of(device) else ""
    return f"not measured on {_this(device)}{assumed}"


def _seconds(task: Task, cost: Estimate, speeds: Speeds, device: str) -> float | None:
    if task.stage in speeds:
        return speeds[task.stage].of(cost)
    peak = peak_of(device) if STAGES[task.stage].imports_torch else None
    return cost.seconds(peak) if peak and cost.flops else None


def speeds_here(store: Store) -> dict[str, Speed]:
    """What tasks of each stage took on this machine's device, in the latest runs of the store."""
    speeds: defaultdict[str, Speed] = defaultdict(Speed)
    seen: set[Ref] = set()
    for listed in listing(store)[:LATEST]:
        try:
            plan = load_plan(store, listed.id)[1]
        except EdmError:
            continue  # a damaged plan
        made = manifests(store, plan)
        costs = estimates(plan, made.get)
        for task, manifest in _measured(plan, made):
            if task.ref in seen or manifest.provenance.get("device") != device_here(STAGES[task.stage].imports_torch):
                continue
            seen.add(task.ref)
            flops = _whole(task, plan, costs)
            speed = speeds[task.stage]
            speed.flops, speed.tasks = speed.flops + (flops or 0.0), speed.tasks + 1
            speed.seconds += float(manifest.provenance.get("seconds") or 0.0)
    return dict(speeds)


def _measured(plan: Plan, made: Mapping[Ref, Manifest]) -> list[tuple[Task, Manifest]]:
    """Finished tasks with their manifests; of each training the last snapshot, whose seconds are those of the whole training."""
    last = {trajectory_ref(task): task for task in plan if task.stage == "snapshot" and task.ref in made}
    return [(task, made[task.ref]) for task in (*last.values(), *(t for t in plan if t.stage != "snapshot" and t.ref in made))]


def _whole(task: Task, plan: Plan, costs: Mapping[Ref, Estimate]) -> float | None:
    """The operations of a task; of a snapshot, those of its training up to it."""
    if task.stage != "snapshot":
        return costs[task.ref].flops
    own = [t for t in plan if t.stage == "snapshot" and trajectory_ref(t) == trajectory_ref(task)]
    return sum(costs[t.ref].flops or 0.0 for t in own if t.settings["epoch"] <= task.settings["epoch"])


def counted(experiment: Experiment, plan: Plan) -> dict[Ref, Images]:
    """How many images the user's own data on this disk have, by the task that prepares them."""
    counts: dict[Ref, Images] = {}
    tasks = {task.address: task for task in plan if task.stage == "prepare"}
    for data in {recipe.data for recipe in experiment.recipes}:
        task = tasks.get(data.source or "")
        if task and data.facts.survey and not is_url(str(data.source)):
            own = registry.load(data.facts.survey)(Path(str(data.source)), data.test_share).counts
            counts[task.ref] = Images(sum(c.train for c in own), sum(c.test for c in own))
    return counts


def device_here(with_gpu: bool = True) -> str:
    """The device of this machine's tasks as results name it: its first GPU if it has one, else the CPU. Found without torch."""
    if with_gpu and gpus():
        for facts in sorted(GPU_FACTS.glob("*/information")):
            for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
                name, _, value = line.partition(":")
                if name == "Model":
                    return value.strip()
    return str(describe(0.0)["device"])


def peak_of(device: str) -> Gpu | None:
    """The peak of a GPU by its name; None for a device that no data sheet is known of."""
    words = device.lower().replace(" ", "")
    return next((gpu for name, gpu in GPUS.items() if name in words), None)


def _this(device: str) -> str:
    return "this CPU" if device.endswith(" cores") else "this GPU"  # as edm2core.provenance.origin names a CPU


def _listed(name: str, values: Iterable[str]) -> str:
    """A line of names. What does not fit is counted."""
    names = list(values)
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > WIDTH:
        shown.pop()
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"  {name:9} {', '.join(shown) or 'none'}{more}"


def _sum(values: Iterable[float | None], words: Callable[[float], str]) -> str:
    """The sum in words, or a question mark if part of it is not known."""
    known = list(values)
    return "?" if None in known else words(sum(value for value in known if value is not None)) if known else ""
