"""edm2 plan"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click
from rich.table import Table

from components.launcher.profile import Profile, load_profile
from edm2core.config.given import Given
from edm2core.config.settings import OwnNetworkSettings, SampleSettings
from edm2core.plan.experiment import Experiment, load_experiment
from edm2core.plan.manifest import Ref
from edm2core.plan.network_cost import Cost
from edm2core.plan.plan import Plan
from edm2core.provenance.made_by import made_by
from edm2core.registry import is_own
from edm2core.store import open_store
from edm2core.store.results import manifests
from edm2core.words import duration, size
from pipelines.cli.options import cluster_option, experiment_argument, set_option, store_option
from pipelines.estimate import GPUS, UTILISATION, Estimate, Gpu, Levels, estimates, solver_alone
from pipelines.gpu_use import NETWORKS, POD, USEFUL, Batch, Claims, claims, divided
from pipelines.inputs.user_files import absent, planned
from pipelines.own_costs import network_costs, solver_levels
from pipelines.run.refusals import continued, lost_snapshots
from pipelines.run.terminal import open_console
from pipelines.summary import summary

UNKNOWN = "?"
WIDE = 1000  # columns of a file or pipe, so that no line is broken


@click.command()
@experiment_argument
@set_option
@store_option
@click.option("--gpu", type=click.Choice(list(GPUS)), default="h100", show_default=True, help="The GPU whose hours are estimated.")
@cluster_option
@click.option("--summary", "short", is_flag=True, help="One screen: what is asked, and how long it takes on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON, one a line, as stages read them.")
def command(experiment: Path, given: tuple[Given, ...], store: str, gpu: str, cluster: str | None, short: bool, as_json: bool) -> None:
    """List the tasks of EXPERIMENT with their keys, what each stage costs, and which results are in the store already. Nothing is run.

    EXPERIMENT is a file, or the name of a bundled one, such as demo. With --cluster it also says how much of the GPU time that the
    profile's jobs claim is at work.
    """
    read = load_experiment(experiment, given)
    profile = load_profile(cluster) if cluster else None
    tasks = planned(read)
    if as_json:
        for task in tasks:
            click.echo(json.dumps(task.to_json()))
        return
    where = open_store(store)
    made = manifests(where, tasks)
    if short:
        for line in summary(read, tasks, where, made):
            click.echo(line.rstrip())
        return
    done = set(made)
    networks, solvers = network_costs(read), solver_levels(read)
    costs = estimates(tasks, made.get, measured=networks, levels=solvers)
    console = open_console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(_tasks(tasks, done))
    console.print()
    console.print(_costs(tasks, done, costs, GPUS[gpu]))
    if batches := divided(tasks, GPUS[gpu], networks):
        console.print()
        console.print(_gpus(batches))
        console.print()
    found = claims(tasks, costs, GPUS[gpu], profile, networks) if profile else None
    if found and found.stages:
        console.print(_claims(found))
        console.print()
    if averages := sum(cost.averages for cost in costs.values()):
        console.print(
            f"Of what is kept, {size(averages)} are averages in three bytes a number, from which averages of any width can be mixed."
        )
    if scratch := max((cost.scratch or 0.0 for cost in costs.values()), default=0.0):
        console.print(f"A probe keeps up to {size(scratch)} of features in its working folder while it runs.")
    for metric, why in absent(read).items():
        console.print(f"Left out: {metric}. {why}")
    console.print(f"{len(tasks)} tasks, {len(done)} of them in {where.uri} already.")
    other = "it would go on under other science; `edm2 run --accept-code` lets it, with a mark."
    lost = "its snapshot is gone, though results made of it are there; `edm2 run --train-again` makes it again."
    warnings = made_by(made.values()).lines
    warnings += [f"{training}: {other}" for training in continued(tasks, made, where)]
    warnings += [f"{task.title}: {lost}" for task in lost_snapshots(tasks, where)]
    for warning in warnings:
        console.print(warning, style="yellow")
    unknown = f" {UNKNOWN}: {_why_unknown(read, networks, solvers)}." if any(cost.flops is None for cost in costs.values()) else ""
    hours = f"Hours are of one {gpu} at {UTILISATION:.0%} of its peak; several share the work."
    console.print(f"{hours} Kept: with a training's states and averages.{unknown}", style="dim")
    if batches:
        idle = f"On more than max GPUs over {1 - USEFUL:.0%} of a step waits for gradients, by a model that nothing has measured yet."
        console.print(f"{idle} Give further GPUs to other trainings.", style="dim")
    if profile and found:
        console.print(_claims_in_words(found, profile), style="dim")


def _why_unknown(experiment: Experiment, networks: Mapping[OwnNetworkSettings, Cost], solvers: Mapping[SampleSettings, Levels]) -> str:
    """Why the costs of some tasks are not known."""
    if any(isinstance(recipe.network, OwnNetworkSettings) and recipe.network not in networks for recipe in experiment.recipes):
        return "not measured, since the own network could not be counted on torch's meta device"
    samplers = [recipe.sample for recipe in experiment.recipes if is_own(recipe.sample.solver)]
    if uncounted := [sample.solver for sample in samplers if solver_alone(sample) not in solvers]:
        return f"evaluations of {', '.join(dict.fromkeys(uncounted))} not known, since it could not be counted here"
    return "known once the data are prepared"


def _tasks(tasks: Plan, done: set[Ref]) -> Table:
    table = Table("", "task", "key", box=None, pad_edge=False)
    for task in tasks:
        is_done = task.ref in done
        table.add_row("✓" if is_done else "·", task.title, str(task.ref), style="dim" if is_done else "")
    return table


def _costs(tasks: Plan, done: set[Ref], costs: dict[Ref, Estimate], gpu: Gpu) -> Table:
    """A line for each stage, and their sum."""
    table = Table("stage", box=None, pad_edge=False)
    for name in ("tasks", "to do", "PFLOP", "kept", "GPU hours", "still"):
        table.add_column(name, justify="right")
    stages = list(dict.fromkeys(task.stage for task in tasks))
    for stage, own in [*((stage, [t for t in tasks if t.stage == stage]) for stage in stages), ("all", list(tasks))]:
        left = [task for task in own if task.ref not in done]
        cells = (
            stage,
            str(len(own)),
            str(len(left)),
            _sum((costs[task.ref].flops for task in own), lambda flops: f"{flops / 1e15:,.3g}"),
            _sum((costs[task.ref].stored for task in own), size),
            *(_sum((costs[task.ref].seconds(gpu) for task in some), lambda seconds: f"{seconds / 3600:,.2f}") for some in (own, left)),
        )
        table.add_row(*cells, style="bold" if stage == "all" else "")
    return table


def _gpus(batches: Iterable[Batch]) -> Table:
    """A line for each recipe: the most GPUs that are useful to one training."""
    table = Table("max GPUs of a training", box=None, pad_edge=False)
    for name in ("batch", *NETWORKS):
        table.add_column(name, justify="right")
    for batch in batches:
        table.add_row(batch.recipe, *map(str, (batch.images, *batch.gpus)))
    return table


def _claims(found: Claims) -> Table:
    """A line for each stage that claims GPUs, and their sum: GPU hours, and what they are for."""
    table = Table("claimed", box=None, pad_edge=False)
    for name in ("pods", "GPU hours", "at work", "start", "rendezvous", "saving", "waiting", "share at work"):
        table.add_column(name, justify="right")
    for stage, claim in [*found.stages.items(), ("all", found.all)]:
        hours = (claim.claimed, claim.work, claim.start, claim.rendezvous, claim.saving, claim.waiting)
        cells = (str(claim.pods), *(f"{seconds / 3600:,.2f}" for seconds in hours), f"{claim.share:.1%}")
        table.add_row(stage, *cells, style="bold" if stage == "all" else "")
    return table


def _claims_in_words(found: Claims, profile: Profile) -> str:
    """What the claims assume, and what they come to."""
    if not found.stages:
        return f"Jobs of the profile {profile.name} claim no GPU."
    assumed = f"A pod is assumed to take {POD.start:g} s to start, {POD.rendezvous:g} s to meet others, {POD.saving:g} s to save and end."
    whole = f"The run takes {duration(found.seconds)} with {profile.jobs} jobs side by side, and claims at most {found.most_gpus} GPUs."
    return f"{found.all.share:.1%} of the claimed GPU time is at work. {whole} {assumed}"


def _sum(values: Iterable[float | None], words: Callable[[float], str]) -> str:
    """The sum of the values in words, or UNKNOWN if one of them is not known."""
    known = list(values)
    return words(sum(value for value in known if value is not None)) if None not in known else UNKNOWN
