"""A real store, tiny data and a tiny random network, and a way to run one stage on them in this process."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edm2core.config import load_recipe
from edm2core.config.settings import DataSettings, NetworkSettings
from edm2core.data import load_prepared, prepare_data
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.tasks import Task
from edm2core.snapshots import files as snapshot
from edm2core.store import open_store
from edm2core.store.results import commit
from edm2core.store.scratch import Scratch
from edm2core.worker.main import manifest_of
from edm2core.worker.workspace import Workspace, open_inputs

NETWORK = NetworkSettings(
    resolution=8, image_channels=1, channels=32, multipliers=(1, 2), blocks=2, weights="forced", norm="pixel", magnitude_preserving=True
)


class Bench:
    """Runs stages one by one against a store, the way their processes do, and keeps what they made there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store, self.runs = folder, open_store(str(folder / "store")), 0

    def workspace(
        self, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Ref], key: str = "", *, rank: int = 0, world_size: int = 1
    ) -> Workspace:
        self.runs += 1
        folder = self.folder / f"work-{self.runs}"
        (folder / "out").mkdir(parents=True)
        task = Task(stage, 1, dict(settings), dict(inputs), key or f"{stage}-{self.runs}", f"{stage} {self.runs}")
        scratch = Scratch(self.store, task.ref.scratch, self.runs)
        return Workspace(task, self.store, folder / "out", scratch, open_inputs(task, self.store, folder / "inputs"), rank, world_size)

    def commit(self, work: Workspace) -> Manifest:
        return commit(self.store, manifest_of(work.task, self.store, work.inputs, work.out, work.metadata, {}))

    def run(
        self,
        stage: Callable[[Workspace], None],
        name: str,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Ref] | None = None,
        key: str = "",
    ) -> tuple[Workspace, Manifest]:
        work = self.workspace(name, settings, inputs or {}, key)
        stage(work)
        return work, self.commit(work)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="session")
def prepared_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ref]:
    """A store with the prepared digits, not to be changed."""
    bench = Bench(tmp_path_factory.mktemp("prepared"))
    work = bench.workspace("prepare", {}, {})
    work.metadata |= prepare_data(DataSettings.model_validate(load_recipe("digits/C").data.model_dump()), None, work.out)
    return bench.folder / "store", bench.commit(work).ref


@pytest.fixture
def digits(bench: Bench, prepared_digits: tuple[Path, Ref]) -> Ref:
    """The prepared digits, copied to the bench's store as its first result."""
    store, ref = prepared_digits
    shutil.copytree(store / ref.folder, bench.folder / "store" / ref.folder)
    bench.runs += 1
    return ref


@pytest.fixture
def network(bench: Bench, digits: Ref) -> Ref:
    """A snapshot of a small G network with random weights."""
    return random_network(bench, digits)


@pytest.fixture
def conditional(bench: Bench, digits: Ref) -> Ref:
    """A snapshot of such a network that knows the ten digits."""
    return random_network(bench, digits, classes=10)


@pytest.fixture
def guide(bench: Bench, digits: Ref) -> Ref:
    """A snapshot of such a network with other random weights."""
    return random_network(bench, digits, seed=1)


def random_network(bench: Bench, digits: Ref, seed: int = 0, classes: int = 0) -> Ref:
    """A snapshot of a small G network whose random weights follow from the seed."""
    torch.manual_seed(seed)
    scale = load_prepared(next((bench.folder / "store" / digits.folder).glob("*/dataset.json")).parent).pixel_scale
    recipe = load_recipe("digits/G").model_copy(update={"network": NETWORK.model_copy(update={"classes": classes})})
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    for parameter in denoiser.parameters():  # gains start at 0: nothing would come out
        if parameter.ndim == 0:
            parameter.data.fill_(0.5)
    work = bench.workspace("snapshot", {}, {"data": digits})
    snapshot.save(work.out, {"fixed": denoiser.state_dict()}, recipe, PixelScale(scale.scale, scale.offset), epoch=1)
    return bench.commit(work).ref


def shards_of(manifest: Manifest, bench: Bench) -> np.ndarray[Any, np.dtype[np.uint8]]:
    names = sorted(name for name in manifest.files if name.startswith("samples-"))
    return np.concatenate([np.load(bench.folder / "store" / manifest.path(name)) for name in names])


@pytest.fixture
def images_of(bench: Bench) -> Callable[[Manifest], np.ndarray[Any, np.dtype[np.uint8]]]:
    """All images of a sample result, in order."""
    return lambda manifest: shards_of(manifest, bench)
