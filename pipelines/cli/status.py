"""edm2 status"""

import click

from components.launcher.profile import load_profile
from edm2core.store.runs import find_run
from pipelines.cli import completion
from pipelines.cli.options import cluster_option, store_option
from pipelines.kubeflow.submit import Kubeflow, must_find
from pipelines.look.runs import Look


@click.command()
@click.argument("run", shell_complete=completion.runs)
@store_option
@cluster_option
def command(run: str, store: str, cluster: str | None) -> None:
    """Say how far RUN is: what is in the store, what is being worked on and how far that is, what failed and why.
    A run that has stopped is called so.

    RUN is a run's id in --store, or STORE/runs/ID. With --cluster, the store is the profile's, and Kubeflow Pipelines says how it sees
    the run.
    """
    goes_on = False  # according to Kubeflow Pipelines, where a run may wait for minutes before it writes anything
    if cluster:
        profile = load_profile(cluster)
        store = profile.store.uri
        kubeflow = Kubeflow(profile)
        for part in must_find(kubeflow, run):
            goes_on |= not part.over
            click.echo(f"Kubeflow Pipelines: {part.name} is {part.state.lower()}. {kubeflow.link(part.id)}")
            for task, reason in kubeflow.errors(part.id).items():
                click.echo(f"  {task}: {reason}")
    record = find_run(run, store)
    seen = Look(record.store).run(record.id)
    click.echo(f"{seen.counts.get('done', 0)} of {len(seen.tasks)} tasks are done.")
    if seen.listed.state in ("stopped", "failed") and not seen.running and not goes_on:
        click.echo(f"The run has {seen.listed.state}: nothing works on it any more. Starting its experiment again continues it.")
    for view in seen.running:
        share = f"{view.share:.0%} " if view.share is not None else ""
        click.echo(f"  {view.task.title}: running {view.reason} {share}{view.words}".rstrip())
    for view in seen.trouble:
        click.echo(f"  {view.task.title}: {view.state}: {view.reason}")
    for words in seen.damaged:
        click.echo(f"  damaged: {words}")
    if seen.damaged or seen.counts.get("damaged"):
        click.echo(f"  `edm2 verify {record.store.uri} --drop` mends what can be.")
