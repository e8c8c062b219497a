"""edm2 logs"""

from __future__ import annotations

import click

from components.launcher.log_record import log_folder, read_record
from components.launcher.profile import load_profile
from components.report.write import recorded_outcomes
from edm2core.events import readable
from edm2core.store.runs import find_run, load_plan
from pipelines.cli.options import cluster_option, store_option


@click.command(short_help="Print what a run's tasks printed.")
@click.argument("run")
@click.option("--task", default="", help="Only tasks whose title or key contains this.")
@store_option
@cluster_option
def command(run: str, task: str, store: str, cluster: str | None) -> None:
    """Print what the tasks of RUN printed, each line after its task's title, and why those failed that did.

    RUN is a run's id in --store, or STORE/runs/ID. With --cluster, the store is the profile's, and what Kubeflow Pipelines says of tasks
    that never came to print anything is added.
    """
    if cluster:
        from pipelines.submit import Kubeflow, must_find  # KFP's client is slow to import

        profile = load_profile(cluster)
        store = profile.store.uri
        kubeflow = Kubeflow(profile)
        for its in must_find(kubeflow, run):
            for what, reason in kubeflow.errors(its.id).items():
                if task.lower() in what.lower():
                    click.echo(f"[Kubeflow: {what}] {reason}")
    record = find_run(run, store)
    where = record.store
    _, tasks = load_plan(where, record.id)
    printed, outcomes = set(), recorded_outcomes(record)
    for one in tasks:
        if task.lower() not in f"{one.title} {one.ref}".lower():
            continue
        pods = log_folder(record.id, one)
        for entry in where.list(f"{record.folder}/logs/{one.stage}-{one.key}/"):
            if not entry.path.startswith(f"{pods}/"):
                for line in where.read(entry.path).decode(errors="replace").splitlines():
                    click.echo(f"[{one.title}] {readable(line)}")
        if pods not in printed:  # all snapshots of a training have one job
            printed.add(pods)
            for kept in read_record(where, pods):
                click.echo(f"[{one.title}] {readable(kept.text)}")
        if (outcome := outcomes.get(one.ref)) and outcome.state == "failed":  # also of a task that never had a pod
            click.echo(f"[{one.title}] failed: {outcome.reason}")
