"""edm2 ema"""

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from edm2core.config.fields import average_name, weights_file
from edm2core.diffusion.posthoc import MOST_ERROR
from edm2core.errors import InputError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.subject import Subject
from edm2core.plan.tasks import ema_task, training_title
from edm2core.store import find_store, split_address
from edm2core.store.averages import Mixture, mixture
from edm2core.store.base import Store
from edm2core.store.results import load
from edm2core.store.runs import find_run, load_plan
from pipelines.cli.options import store_option
from pipelines.run.run_tasks import do_task
from pipelines.run.terminal import open_console


@click.command()
@click.argument("snapshots", nargs=-1, required=True)
@click.option("--sigma-rel", "widths", multiple=True, required=True, help="Relative width, such as 0.1; may be given several times.")
@click.option("--force", is_flag=True, help="Mix them even if an error is above 5 %.")
@store_option
def command(snapshots: tuple[str, ...], widths: tuple[str, ...], force: bool, store: str) -> None:
    """Mix power-function averages of the given relative widths, at the epochs of SNAPSHOTS (EDM2, section 3).

    A snapshot is STORE/results/snapshot/KEY, or snapshot/KEY with --store. A run (its id, or STORE/runs/ID) stands for all its snapshots.
    Each average becomes a result, which `edm2core.snapshots.files.load` reads. An experiment samples from it with `sample: {ema: [...]}`.
    """
    names = [_width(width) for width in widths]
    console = open_console()
    tasks = []
    for where, manifest in (snapshot for address in snapshots for snapshot in _snapshots(address, store)):
        subject = Subject.parse({key: manifest.metadata.get(key) for key in ("dataset", "recipe", "seed", "epoch")})
        for name in names:
            mixed = mixture(where, manifest, float(name))
            title = f"{training_title(subject.recipe, subject.seed)} · EMA {name} at epoch {subject.epoch}"
            share = _rounding_share(where, manifest, mixed)
            rounded = f"rounding {mixed.rounding:.1e} of the weights" + (f", {share:.2%} of the way to them" if share is not None else "")
            console.print(f"{title}: profile error {mixed.mix.error:.2%}, from {len(mixed.stored) + 1} epochs' averages; {rounded}")
            if not force:
                mixed.must_be_fine(name, f"{where.uri}/{manifest.ref.folder}", share)
            forced = max(mixed.mix.error, share or 0.0) > MOST_ERROR
            tasks.append((where, ema_task(manifest.ref, float(name), title, subject, force=forced)))
    for where, task in tasks:
        console.print(f"{where.uri}/{do_task(task, where, 'ema', console).ref.folder}")


def _rounding_share(where: Store, manifest: Manifest, mixed: Mixture) -> float | None:
    """The rounding error of the stored averages, as a share of how far the mixture is from the weights; None if that is not known."""
    with TemporaryDirectory() as folder:

        def weights(width: str) -> Path:
            file = weights_file(width)
            return where.fetch(manifest.path(file), Path(folder), manifest.files[file])

        return mixed.rounding_share(weights)


def _width(text: str) -> str:
    """The name of the average of a relative width."""
    if text == "fixed":
        raise InputError("The fixed EMA is in every snapshot already.", where="--sigma-rel", do_next="Give a relative width, such as 0.1.")
    try:
        return average_name(text)
    except ValueError as error:
        raise InputError(f"--sigma-rel {error}.", where="--sigma-rel") from None


def _snapshots(address: str, store: str) -> list[tuple[Store, Manifest]]:
    """The snapshot at an address, or all snapshots of a run."""
    uri, result = split_address(address, "results", store)
    if result.startswith("snapshot/"):
        where, refs = find_store(uri), [Ref.parse(result)]
    else:
        where = (run := find_run(address, store)).store
        refs = [task.ref for task in load_plan(where, run.id)[1] if task.stage == "snapshot"]
    manifests = [manifest for ref in refs if (manifest := load(where, ref)) is not None]
    if not manifests:
        raise InputError("There is no finished snapshot.", where=address, do_next="`edm2 plan EXPERIMENT` lists snapshots and their keys.")
    return [(where, manifest) for manifest in manifests]
