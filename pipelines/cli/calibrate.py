"""edm2 calibrate"""

from collections.abc import Mapping
from pathlib import Path

import click

from edm2core.config.recipes import lay, recipe_document
from edm2core.config.settings import CalibrationSettings, Recipe
from edm2core.config.yaml_file import Origin
from edm2core.data.loose import loose_images
from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.metrics.gaussian import arrays_of
from edm2core.paths import local_path, located
from edm2core.plan.experiment import complete
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, calibration_task
from edm2core.registry import EXTRACTORS, WEIGHT_FILES, WEIGHTS
from edm2core.report.calibrations import calibration
from edm2core.store import open_store
from edm2core.store.base import Store
from edm2core.store.results import load
from pipelines.cli import completion
from pipelines.cli.options import PATH, store_option
from pipelines.inputs.user_files import reference_tasks
from pipelines.run.run_tasks import do_tasks
from pipelines.run.terminal import open_console

SIGNS = {True: "✓", False: "✗", None: "·"}


@click.command()
@click.argument("recipe", shell_complete=completion.recipes)
@click.option("--data", help="Path or URL of the recipe's data, where they are not where it says.")
@click.option("--extractor", type=click.Choice(list(EXTRACTORS)), help="Whose features (default: digits for digits, else inception).")
@click.option("--weights", help="Path or URL of the extractor's weights.")
@click.option("--statistics", type=PATH, help="Others' statistics of the training images: .npz with mu and sigma.")
@click.option("--origin", help="Where --statistics come from, in words.")
@click.option("--images", help="Images of a model whose distance is known: .npy, .npz, a folder, a zip, or sample/KEY in the store.")
@click.option("--model", help="What made --images, and who published its distance, in words.")
@click.option("--expected", type=float, help="The distance that was published for --model.")
@click.option("--tolerance", type=click.FloatRange(0, min_open=True), help="By how much ours may differ from it.")
@store_option
def command(
    recipe: str,
    data: str | None,
    extractor: str | None,
    weights: str | None,
    statistics: Path | None,
    origin: str | None,
    images: str | None,
    model: str | None,
    expected: float | None,
    tolerance: float | None,
    store: str,
) -> int:
    """Compare distances that edm2 computes, on the data of RECIPE, with others': our reference with published statistics, the test images
    with the training images, and the distance of a published model's images with the published one.

    Each comparison is made once, if its options are given. Every report in the store with this extractor shows its result. The exit code
    is 1 if a model's distance is beyond its tolerance.
    """
    _all_or_none({"--images": images, "--model": model, "--expected": expected, "--tolerance": tolerance})
    _all_or_none({"--statistics": statistics, "--origin": origin})
    document = recipe_document(recipe)
    if data:
        document = lay(document, "data.source", located(data, Path(), "--data", urls=True), Origin("the command", 1))
    read, where = complete(document), open_store(store)
    features = extractor or (read.data.facts.extractor or "inception")
    if features in WEIGHTS and weights is None:
        file = WEIGHT_FILES[WEIGHTS[features]]
        raise InputError(f"The weights of {file.words} are not given.", where="--weights", do_next=f"Give a path or URL. {file.get}")
    plain = read.model_copy(update={"reference": None, "start": None})
    made = reference_tasks(plain, features, weights and located(weights, Path(), "--weights", urls=True))
    inputs, dimensions = {task.stage.replace("prepare", "data"): task.ref for task in made}, EXTRACTORS[features].dimensions
    asked = []
    if statistics and origin:
        digest = digest_of(statistics)
        arrays_of(statistics, dimensions)
        settings = CalibrationSettings(against="statistics", name=origin)
        asked.append(calibration_task(settings, inputs, read.dataset, str(statistics.resolve()), digest))
    if images and model and expected is not None and tolerance is not None:
        settings = CalibrationSettings(against="images", name=model, expected=expected, tolerance=tolerance)
        asked.append(_by_model(inputs, dimensions, images, settings, read, where))
    console = open_console()
    run = f"calibrate-{read.dataset}-{(asked or made)[-1].key[:6]}"
    (prepared,) = do_tasks(made[:1], where, run, console)
    count = prepared.metadata["counts"]["test"]
    if count > dimensions:
        asked.append(calibration_task(CalibrationSettings(against="test"), inputs, read.dataset))
    compared = [calibration(manifest) for manifest in do_tasks([*made, *asked], where, run, console)[len(made) :]]
    for comparison in compared:
        console.print(f"{SIGNS[comparison.agrees]} {comparison.title}: {comparison.found}")
    absent = {
        f"the test images: {count} are too few for these features": count <= dimensions,
        "others' statistics: --statistics (NVlabs' are at https://nvlabs-fi-cdn.nvidia.com/edm/fid-refs) and --origin": not statistics,
        "a model of known distance: --images, --model, --expected and --tolerance": not images,
    }
    for measurement, missing in absent.items():
        if missing:
            console.print(f"- not compared with {measurement}")
    return int(any(comparison.agrees is False for comparison in compared))


def _all_or_none(options: Mapping[str, object]) -> None:
    missing = [name for name, value in options.items() if value is None]
    if missing and len(missing) < len(options):
        given = ", ".join(name for name in options if name not in missing)
        raise InputError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing beside {given}.", where=missing[0])


def _by_model(inputs: dict[str, Ref], dimensions: int, images: str, settings: CalibrationSettings, recipe: Recipe, store: Store) -> Task:
    """Compare the distance of the images of others' model with the published one. They are a file, a folder, or sample/KEY in the store.

    Raises InputError if they are too few, or not of these data.
    """
    source, digest = "", ""
    if images.startswith("sample/"):
        samples = load(store, Ref.parse(images))
        snapshot = load(store, Ref.parse(samples.inputs["snapshot"])) if samples else None
        if samples is None or snapshot is None:
            raise InputError(f"There are no {images} in {store.uri}.", where="--images", do_next="Give a result that a report names.")
        if snapshot.inputs.get("data") != str(inputs["data"]):
            raise InputError(f"{samples.title}: not of {recipe.name}'s data.", where="--images", do_next="Name a recipe of its data.")
        count, inputs = samples.metadata["n"], {**inputs, "samples": samples.ref}
    else:
        path, network = local_path(images, "--images").resolve(), recipe.network
        source, digest = str(path), digest_of(path)
        count, _ = loose_images(path, (network.image_channels, network.resolution, network.resolution))
    if count <= dimensions:
        raise InputError(
            f"{count} images are too few for a Fréchet distance in {dimensions} features.",
            where=f"--images {images}",
            do_next=f"Give at least {dimensions + 1}; published distances are of 50000.",
        )
    return calibration_task(settings, inputs, recipe.dataset, source, digest)
