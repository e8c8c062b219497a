"""Averages mixed post hoc, against averages over all steps of a short training."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edm2core.diffusion.posthoc import ROUNDING, gamma
from edm2core.diffusion.trainer import Trainer
from edm2core.errors import InputError, IntegrityError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest, Ref
from edm2core.plan.plan import plan
from edm2core.plan.subject import Subject
from edm2core.plan.tasks import Task, ema_task, trajectory_ref
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.three_bytes import REST, unpacked
from edm2core.stages import ema, prepare, train
from edm2core.store import Store, open_store
from edm2core.store.averages import mixture
from edm2core.store.results import commit, load, new_attempt, upload_files
from edm2core.worker.main import _work

EPOCHS = 24
EXPERIMENT = """
name: short
recipes: [digits/E]
epochs: [24]
metrics: []
probe: {ema: 0.075, blocks: [out_2]}
overrides:
  {network.multipliers: [1], network.attention_resolutions: [], data.test_share: 0.95, training.batch: 32, training.epochs: 24,
   training.average_every: 1, training.warmup_epochs: 1}
"""


class Run:
    """A finished training whose weights after every step are known."""

    def __init__(self, folder: Path) -> None:
        (folder / "e.yaml").write_text(EXPERIMENT)
        self.store: Store = open_store(str(folder / "store"))
        tasks = plan(load_experiment(folder / "e.yaml"), {"data:digits/E": "builtin:digits"})
        _work(tasks[0], self.store, prepare.run)
        self.task = next(task for task in tasks if task.stage == "snapshot")
        self.planned = next(task for task in tasks if task.stage == "ema")
        self.steps: list[tuple[int, dict[str, torch.Tensor]]] = []  # images seen, weights
        original = Trainer.step

        def recorded(trainer: Trainer) -> None:
            original(trainer)
            weights = {name: parameter.detach().double() for name, parameter in trainer.parameters.items()}
            self.steps.append((trainer.images_seen(), weights))

        Trainer.step = recorded  # type: ignore[method-assign]
        try:
            train.work(self.task, self.store)
        finally:
            Trainer.step = original  # type: ignore[method-assign]

    def brute_force(self, sigma_rel: float) -> dict[str, torch.Tensor]:
        """The power-function average over all steps: the one from s to t weighs (t/T)^(γ+1) - (s/T)^(γ+1)."""
        power, last, before = gamma(sigma_rel) + 1, self.steps[-1][0], 0
        total = {name: torch.zeros_like(weight) for name, weight in self.steps[-1][1].items()}
        for images, weights in self.steps:
            share = (images / last) ** power - (before / last) ** power
            before = images
            for name, weight in weights.items():
                total[name] += share * weight
        return total


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Store:
    shutil.copytree(Path(run.store.root), tmp_path / "store")  # type: ignore[attr-defined]
    return open_store(str(tmp_path / "store"))


def made(store: Store, ref: Ref) -> Manifest:
    manifest = load(store, ref)
    assert manifest is not None
    return manifest


def task_of(run: Run, sigma_rel: float, force: bool = False) -> Task:
    return ema_task(run.task.ref, sigma_rel, f"EMA {sigma_rel}", Subject(), force)


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return float(sum(((a[name].double() - b[name].double()) ** 2).sum() for name in b)) ** 0.5


@pytest.mark.parametrize("sigma_rel", [0.04, 0.075, 0.15])
def test_a_mixed_average_is_the_average_over_all_steps(run: Run, tmp_path: Path, sigma_rel: float) -> None:
    task, wanted = task_of(run, sigma_rel), run.brute_force(sigma_rel)
    _work(task, run.store, ema.run)
    manifest = made(run.store, task.ref)
    assert manifest.metadata["error"] == pytest.approx(mixture(run.store, made(run.store, run.task.ref), sigma_rel).mix.error, abs=1e-6)
    assert manifest.metadata["error"] < 0.05
    mixed = load_file(run.store.fetch(manifest.path(f"ema-{sigma_rel:.3f}.safetensors"), tmp_path))
    given = made(run.store, run.task.ref)
    nearest = min(distance(load_file(run.store.fetch(given.path(f"ema-{w}.safetensors"), tmp_path)), wanted) for w in ("0.050", "0.100"))
    assert distance(mixed, wanted) < 0.1 * nearest


def test_what_is_not_averaged_is_as_in_the_snapshot(run: Run) -> None:
    task = task_of(run, 0.12)
    _work(task, run.store, ema.run)
    mixed = snapshot.load(f"{run.store.uri}/{task.ref.folder}", ema="0.120")
    given = snapshot.load(f"{run.store.uri}/{run.task.ref.folder}", ema="0.100")
    buffers = dict(given.named_buffers())
    assert buffers
    assert all(torch.equal(tensor, mixed.state_dict()[name]) for name, tensor in buffers.items())
    assert mixed.pixel_scale == given.pixel_scale


def test_the_plan_mixes_what_no_snapshot_has(run: Run) -> None:
    assert run.planned.ref == task_of(run, 0.075).ref
    assert run.planned.needs == (run.task.ref,)


def test_a_profile_with_a_large_error_is_refused_unless_forced(run: Run) -> None:
    with pytest.raises(InputError, match=r"an error of \d+\.\d%; more than 5%"):
        _work(task_of(run, 0.01), run.store, ema.run)
    forced = task_of(run, 0.01, force=True)
    assert forced.ref != task_of(run, 0.01).ref
    _work(forced, run.store, ema.run)
    assert made(run.store, forced.ref).metadata["error"] > 0.05


def test_averages_that_are_missing_make_the_error_larger(run: Run, copy: Store) -> None:
    stored = mixture(copy, made(copy, run.task.ref), 0.075)
    assert list(stored.stored) == list(range(1, EPOCHS))
    for manifest in list(stored.stored.values())[:-1]:
        copy.delete(manifest.ref.manifest)
    few = mixture(copy, made(copy, run.task.ref), 0.075)
    assert list(few.stored) == [EPOCHS - 1]
    assert few.mix.error > 10 * stored.mix.error


def test_a_damaged_average_is_not_mixed(run: Run, copy: Store) -> None:
    manifest = next(iter(mixture(copy, made(copy, run.task.ref), 0.075).stored.values()))
    file = Path(copy.root) / manifest.path("ema-0.050.safetensors")  # type: ignore[attr-defined]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        _work(task_of(run, 0.06), copy, ema.run)


def test_every_average_is_of_its_trajectory(run: Run) -> None:
    stored = mixture(run.store, made(run.store, run.task.ref), 0.075).stored
    assert {manifest.metadata["trajectory"] for manifest in stored.values()} == {trajectory_ref(run.task).key}


Weights = dict[str, torch.Tensor]


def length(a: Weights) -> float:
    return distance(a, {name: torch.zeros_like(value) for name, value in a.items()})


def rounded(run: Run, sigma_rel: float, folder: Path, bits: int) -> float:
    """What storing does to a mix, as a share of the weights: each stored average against its three bytes, or the half against those."""
    found = mixture(run.store, made(run.store, run.task.ref), sigma_rel)
    shares = found.mix.coefficients.reshape(-1, len(found.widths))
    error: Weights = {}
    for manifest, own in zip(found.stored.values(), shares, strict=False):
        for width, share in zip(found.widths, own, strict=True):
            tensors = load_file(run.store.fetch(manifest.path(f"ema-{width}.safetensors"), folder))
            for name in (name for name in tensors if not name.endswith(REST)):
                exact = unpacked(tensors, name)
                stored = exact.half().double() if bits == 16 else exact
                error[name] = error.get(name, 0) + share * (stored - exact)
    return length(error) / length(run.steps[-1][1])


@pytest.mark.parametrize("sigma_rel", [0.02, 0.03, 0.04, 0.15])
def test_the_rounding_of_half_precision_is_what_the_coefficients_say(run: Run, tmp_path: Path, sigma_rel: float) -> None:
    """Of normal numbers .85 of the bound's root mean square; errors of neighbouring averages are independent in a real training."""
    found = mixture(run.store, made(run.store, run.task.ref), sigma_rel)
    expected = found.rounding / ROUNDING[24] * ROUNDING[16]
    assert 0.75 < rounded(run, sigma_rel, tmp_path, 16) / expected < 1


@pytest.mark.parametrize("sigma_rel", [0.02, 0.03, 0.04])
def test_the_way_to_the_weights_is_estimated_from_the_averages(run: Run, tmp_path: Path, sigma_rel: float) -> None:
    given, raw = made(run.store, run.task.ref), run.steps[-1][1]
    found = mixture(run.store, given, sigma_rel)
    share = found.rounding_share(lambda width: run.store.fetch(given.path(f"ema-{width}.safetensors"), tmp_path))
    true = found.rounding * length(raw) / distance(run.brute_force(sigma_rel), raw)
    assert share == pytest.approx(true, rel=0.3)


def in_half_precision(store: Store, snapshot: Manifest, folder: Path) -> None:
    """The averages as they were stored before they had three bytes a number."""
    for manifest in mixture(store, snapshot, 0.075).stored.values():
        out = folder / manifest.key
        out.mkdir()
        for file in manifest.files:
            tensors = load_file(store.fetch(manifest.path(file), folder))
            save_file({name: value for name, value in tensors.items() if not name.endswith(REST)}, out / file)
        store.delete(manifest.ref.manifest)
        attempt = new_attempt()
        metadata = {name: value for name, value in manifest.metadata.items() if name != "bits"}
        commit(store, replace(manifest, attempt=attempt, files=upload_files(store, manifest.ref, attempt, out), metadata=metadata))


def test_half_precision_is_refused_where_its_rounding_would_show(run: Run, copy: Store, tmp_path: Path) -> None:
    given, whole, wide = made(copy, run.task.ref), task_of(run, 0.022, force=True), task_of(run, 0.06)
    _work(whole, copy, ema.run)
    assert made(copy, whole.ref).metadata["rounding_of_way"] < 0.01
    copy.delete(whole.ref.manifest)
    in_half_precision(copy, given, tmp_path)
    found = mixture(copy, given, 0.022)
    share = found.rounding_share(lambda width: copy.fetch(given.path(f"ema-{width}.safetensors"), tmp_path))
    assert share is not None
    assert found.rounding == pytest.approx(2**8 * mixture(run.store, given, 0.022).rounding)
    fine = replace(found, mix=replace(found.mix, error=0.01))  # 24 epochs are too few for so narrow a profile
    with pytest.raises(InputError, match=r"half precision.*\d+% of the way to them; more than 5%"):
        fine.must_be_fine("0.022", "here", share)
    _work(whole, copy, ema.run)
    assert made(copy, whole.ref).metadata["rounding_of_way"] == pytest.approx(share)
    assert share > 0.05
    _work(wide, copy, ema.run)
    assert made(copy, wide.ref).metadata["rounding_of_way"] < 0.05


def test_a_mix_of_the_snapshots_own_averages_has_no_rounding(run: Run) -> None:
    assert mixture(run.store, made(run.store, run.task.ref), 0.05).rounding < 1e-12
