"""The tasks that compare distances from our own reference of a data set with what others have published."""

from pathlib import Path

from edm2core.config.settings import CalibrationSettings, Recipe
from edm2core.data.loose import loose_images
from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.metrics.gaussian import arrays_of
from edm2core.paths import local_path
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task, calibration_task
from edm2core.registry import EXTRACTORS
from edm2core.store.base import Store
from edm2core.store.results import load


def by_statistics(made: list[Task], file: Path, name: str, dataset: str) -> Task:
    """Compare our reference with others' of the same images. Raises InputError if the file holds none in these features."""
    digest = digest_of(file)
    arrays_of(file, _dimensions(made))
    settings = CalibrationSettings(against="statistics", name=name)
    return calibration_task(settings, _inputs(made), dataset, str(file.resolve()), digest)


def by_test_images(made: list[Task], count: int, dataset: str) -> Task | None:
    """Compare our reference with `count` test images; None if they are too few."""
    if count <= _dimensions(made):
        return None
    return calibration_task(CalibrationSettings(against="test"), _inputs(made), dataset)


def by_model(made: list[Task], images: str, settings: CalibrationSettings, recipe: Recipe, store: Store) -> Task:
    """Compare the distance of the images of others' model with the published one. They are a file, a folder, or sample/KEY in the store.

    Raises InputError if they are too few, or not of these data.
    """
    inputs, source, digest = _inputs(made), "", ""
    if images.startswith("sample/"):
        samples = load(store, Ref.parse(images))
        snapshot = load(store, Ref.parse(samples.inputs["snapshot"])) if samples else None
        if samples is None or snapshot is None:
            raise InputError(f"There are no {images} in {store.uri}.", where="--images", do_next="Give a result that a report names.")
        if snapshot.inputs.get("data") != str(made[0].ref):
            raise InputError(f"{samples.title}: not of {recipe.name}'s data.", where="--images", do_next="Name a recipe of its data.")
        count, inputs = samples.metadata["n"], {**inputs, "samples": samples.ref}
    else:
        path, network = local_path(images, "--images").resolve(), recipe.network
        source, digest = str(path), digest_of(path)
        count, _ = loose_images(path, (network.image_channels, network.resolution, network.resolution))
    if count <= (dimensions := _dimensions(made)):
        raise InputError(
            f"{count} images are too few for a Fréchet distance in {dimensions} features.",
            where=f"--images {images}",
            do_next=f"Give at least {dimensions + 1}; published distances are of 50000.",
        )
    return calibration_task(settings, inputs, recipe.dataset, source, digest)


def _inputs(made: list[Task]) -> dict[str, Ref]:
    """The results of these tasks as inputs of another: data, extractor, reference."""
    return {task.stage.replace("prepare", "data"): task.ref for task in made}


def _dimensions(made: list[Task]) -> int:
    """How many features the extractor among these tasks has."""
    return EXTRACTORS[next(task for task in made if task.stage == "extractor").settings["extractor"]].dimensions
