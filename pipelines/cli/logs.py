"""edm2 logs"""

from collections.abc import Iterator

import click

from components.launcher.log_store import log_folder, read_record
from components.launcher.profile import load_profile
from components.report.write import recorded_outcomes
from edm2core.errors import InputError
from edm2core.events import readable
from edm2core.plan.tasks import Task
from edm2core.store.results import load
from edm2core.store.runs import Run, find_run, list_runs, load_plan
from pipelines.cli import completion
from pipelines.cli.options import cluster_option, store_option


@click.command()
@click.argument("run", shell_complete=completion.runs)
@click.option("--task", default="", help="Only tasks whose title or key contains this.")
@store_option
@cluster_option
def command(run: str, task: str, store: str, cluster: str | None) -> None:
    """Print what the tasks of RUN printed, each line after its task's title, and why tasks failed.

    RUN is a run's id in --store, or STORE/runs/ID. For a reused task that --task names, the output of the run that did it is printed.
    With --cluster, the store is the profile's. Then Kubeflow Pipelines also says why tasks failed that never printed anything.
    """
    printed = False
    if cluster:
        from pipelines.kubeflow.submit import Kubeflow, must_find  # KFP's client is slow to import

        profile = load_profile(cluster)
        store = profile.store.uri
        kubeflow = Kubeflow(profile)
        for part in must_find(kubeflow, run):
            for failed, reason in kubeflow.errors(part.id).items():
                if task.lower() in failed.lower():
                    printed = True
                    click.echo(f"[Kubeflow: {failed}] {reason}")
    record = find_run(run, store)
    tasks = [named for named in load_plan(record.store, record.id)[1] if task.lower() in f"{named.title} {named.ref}".lower()]
    if task and not tasks and not printed:
        what = f"No task of {record.id} has {task} in its title or key."
        raise InputError(what, where="--task", do_next=f"`edm2 logs {record.id}` prints all.")
    read, outcomes = set[str](), recorded_outcomes(record)
    for named in tasks:
        for line in _printed(record, named, read):
            printed = True
            click.echo(f"[{named.title}] {readable(line)}")
        if (outcome := outcomes.get(named.ref)) and outcome.state == "failed":  # it may never have had a pod
            printed = True
            click.echo(f"[{named.title}] failed: {outcome.reason}")
    if task and not printed:
        _print_of_others(record, tasks)


def _print_of_others(record: Run, tasks: list[Task]) -> None:
    """Print the output of reused tasks from the run that did them. Raises InputError if no run has any."""
    others = [Run(name, record.store) for name in list_runs(record.store) if name != record.id]
    printed = False
    for task in tasks:
        other, lines = next(((other, lines) for other in others if (lines := list(_printed(other, task, set())))), (record, []))
        if lines:
            printed = True
            click.echo(f"{task.title} is reused; what it printed in {other.id}:", err=True)
        for line in lines:
            click.echo(f"[{task.title}] {readable(line)}")
    if not printed:
        whose = f"“{tasks[0].title}”" if len(tasks) == 1 else f"these {len(tasks)} tasks"
        begun = any(load(record.store, task.ref) for task in tasks)
        why = "the results are there, made by a run that is forgotten or in the job of another task" if begun else "not begun yet"
        raise InputError(f"Nothing is kept of what {whose} printed: {why}.", where=f"{record.store.uri}/{record.folder}/logs")


def _printed(record: Run, task: Task, read: set[str]) -> Iterator[str]:
    """The lines of a task in a run. All snapshots of a training have one job; `read` names jobs whose lines were printed already."""
    where, pods = record.store, log_folder(record.id, task)
    for entry in where.list(f"{record.folder}/logs/{task.stage}-{task.key}/"):
        if not entry.path.startswith(f"{pods}/"):
            yield from where.read(entry.path).decode(errors="replace").splitlines()
    if pods not in read:
        read.add(pods)
        yield from (line.text for line in read_record(where, pods))
