import json
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.latents import drawn_labels
from edm2core.errors import EdmError, InputError
from edm2core.plan.manifest import Ref
from edm2core.plan.tasks import Task
from edm2core.stages import sample
from edm2core.stages.sample import rows_by_class, shard_names, write_grid
from edm2core.store.results import load


def settings(**changes: Any) -> dict[str, Any]:
    chosen = {"count": 50, "steps": 4, "batch": 20, "shard": 20, **changes}
    return {**SampleSettings(**{k: v for k, v in chosen.items() if k != "draw"}).model_dump(mode="json"), "draw": chosen.get("draw", 0)}


def differ(a: Any, b: Any) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in every network evaluation."""
    seen: list[int] = []
    forward = Denoiser.forward

    def counting(self: Denoiser, noised: torch.Tensor, sigma: Any, labels: torch.Tensor | None) -> torch.Tensor:
        seen.append(len(noised))
        return forward(self, noised, sigma, labels)

    monkeypatch.setattr(Denoiser, "forward", counting)
    return seen


def test_shards_a_grid_and_the_facts_come_out(bench: Any, network: Ref, images_of: Any, evaluations: list[int]) -> None:
    _, manifest = bench.run(sample.run, "sample", settings(), {"snapshot": network})
    images = images_of(manifest)
    assert images.shape == (50, 1, 8, 8)
    assert images.dtype == np.uint8
    assert images.std() > 5
    assert len({image.tobytes() for image in images}) == 50
    assert shard_names(manifest.files) == ["samples-00000.npy", "samples-00001.npy", "samples-00002.npy"]
    assert (manifest.metadata["n"], manifest.metadata["nfe"], manifest.metadata["ema"]) == (50, 7, "fixed")
    assert sum(evaluations) == (50 + 48) * manifest.metadata["nfe"]  # the interpolations too
    drawing = manifest.metadata["drawing"]
    assert (drawing["images"], drawing["joules"]) == (50, None)  # a CPU does not tell its energy
    assert 0 < drawing["seconds"] < 50
    with Image.open(bench.folder / "store" / manifest.path("grid.png")) as grid:
        assert grid.size[0] >= 256
        assert grid.getpixel((0, 0)) == images[0, 0, 0, 0]
        scale = grid.size[0] // (8 * (8 + 1))  # a line after every image
        assert grid.getpixel((grid.size[0] - scale - 1, 0)) == images[7, 0, 0, 7]
        assert grid.getpixel((grid.size[0] - 1, 0)) == 128


@pytest.mark.parametrize("how", [{}, {"eta": 1.0}, pytest.param({"solver": "dpmpp_2m_sde"}, marks=pytest.mark.slow)], ids=str)
def test_how_the_work_is_cut_changes_no_image(bench: Any, network: Ref, images_of: Any, how: dict[str, Any]) -> None:
    second = settings(**how, draw=1)  # without interpolations
    _, whole = bench.run(sample.run, "sample", second, {"snapshot": network})
    for split in ({"batch": 7}, {"shard": 13}, {"batch": 50, "shard": 50}):
        _, cut = bench.run(sample.run, "sample", second | split, {"snapshot": network})
        assert differ(images_of(whole), images_of(cut)) <= 1, split


SAMPLERS: list[tuple[dict[str, Any], int]] = [  # settings, and the network's evaluations of an image
    ({"solver": "euler"}, 4),
    ({"solver": "unipc", "order": 2}, 4),
    ({"solver": "dpmpp_2m", "steps": 3, "schedule": (80.0, 1.0, 0.02)}, 3),
    ({"schedule": "uniform_logsnr"}, 7),
]


def test_solver_and_noise_levels_are_those_of_the_settings(bench: Any, network: Ref, images_of: Any, evaluations: list[int]) -> None:
    _, plain = bench.run(sample.run, "sample", settings(), {"snapshot": network})
    for how, evaluated in SAMPLERS:
        evaluations.clear()
        _, manifest = bench.run(sample.run, "sample", settings(**how), {"snapshot": network})
        assert manifest.metadata["nfe"] == evaluated, how
        assert sum(evaluations) == (50 + 48) * evaluated, how
        assert differ(images_of(plain), images_of(manifest)) > 1, how


def test_a_row_of_the_grid_by_class_holds_the_first_images_of_the_class(tmp_path: Any) -> None:
    chosen = SampleSettings(count=90, shard=40)
    labels = drawn_labels(0, 0, range(90), 3).numpy()
    marked = np.zeros((90, 1, 2, 2), np.uint8)
    marked[:, 0, 0, 0], marked[:, 0, 1, 1] = labels + 1, np.arange(90)
    for shard in range(3):
        np.save(tmp_path / sample.shard_name(shard), marked[40 * shard : 40 * shard + 40])
    rows = rows_by_class(tmp_path, chosen, 3).reshape(3, 8, 1, 2, 2)
    assert (rows[:, :, 0, 0, 0] == np.arange(1, 4)[:, None]).all()
    assert [row.tolist() for row in rows[:, :, 0, 1, 1]] == [np.flatnonzero(labels == label)[:8].tolist() for label in range(3)]
    assert rows_by_class(tmp_path, chosen, 20).shape == (80, 1, 2, 2)


def test_every_solver_begins_from_the_same_noise(bench: Any, network: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[torch.Tensor] = []
    forward = Denoiser.forward

    def noting(self: Denoiser, noised: torch.Tensor, sigma: Any, labels: torch.Tensor | None) -> torch.Tensor:
        if float(sigma) == 80.0:
            begun.append(noised.clone())
        return forward(self, noised, sigma, labels)

    monkeypatch.setattr(Denoiser, "forward", noting)
    samplers: tuple[dict[str, Any], ...] = ({}, {"steps": 6}, {"solver": "dpmpp_2m"}, {"solver": "dpmpp_2m_sde"}, {"solver": "unipc"})
    for sampler in samplers:
        bench.run(sample.run, "sample", settings(count=3, draw=1, **sampler), {"snapshot": network})
    assert len(begun) == len(samplers)
    assert all(torch.equal(begun[0], other) for other in begun)


def test_guided_samples_differ_and_their_evaluations_count_double(
    bench: Any, conditional: Ref, images_of: Any, evaluations: list[int]
) -> None:
    made = {}
    for interval, evaluated in ((None, 14), ((0.2, 100.0), 12)):  # σ: 80, 9.7, 0.47, 0.002; all but the first are met twice
        evaluations.clear()
        how = settings(guidance={"weight": 3.0, "interval": interval})
        _, manifest = bench.run(sample.run, "sample", how, {"snapshot": conditional})
        assert manifest.metadata["nfe"] == evaluated
        assert sum(evaluations) == (50 + 48) * evaluated
        made[interval] = images_of(manifest)
    _, plain = bench.run(sample.run, "sample", settings(), {"snapshot": conditional})
    assert all(differ(images, images_of(plain)) > 1 for images in made.values())


def test_samples_are_guided_by_another_snapshot(bench: Any, network: Ref, guide: Ref, images_of: Any, evaluations: list[int]) -> None:
    how = settings(guidance={"weight": 2.0, "guide": {"ema": "fixed"}})
    _, manifest = bench.run(sample.run, "sample", how, {"snapshot": network, "guide": guide})
    assert manifest.metadata["nfe"] == 14
    assert sum(evaluations) == (50 + 48) * 14
    _, plain = bench.run(sample.run, "sample", settings(), {"snapshot": network})
    _, itself = bench.run(sample.run, "sample", how, {"snapshot": network, "guide": network})
    guide_alone = settings(guidance={"weight": 0.0, "guide": {"ema": "fixed"}})
    _, other = bench.run(sample.run, "sample", guide_alone, {"snapshot": network, "guide": guide})
    _, alone = bench.run(sample.run, "sample", settings(), {"snapshot": guide})
    assert differ(images_of(manifest), images_of(plain)) > 1
    assert differ(images_of(itself), images_of(plain)) <= 1
    assert differ(images_of(other), images_of(alone)) <= 1


def test_two_processes_make_the_images_of_one(bench: Any, network: Ref, images_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "POLL_S", 0.02)
    second = settings(shard=10, draw=1)  # without interpolations
    _, alone = bench.run(sample.run, "sample", second, {"snapshot": network})
    both = [bench.workspace("sample", second, {"snapshot": network}, "both", rank=rank, world_size=2) for rank in (0, 1)]
    other = threading.Thread(target=sample.run, args=(both[1],))
    other.start()
    sample.run(both[0])
    other.join()
    assert sorted(path.name for path in both[1].out.iterdir()) == ["samples-00001.npy", "samples-00003.npy"]
    assert differ(images_of(alone), images_of(bench.commit(both[0]))) <= 1


def test_finished_shards_are_not_drawn_again(
    bench: Any, network: Ref, images_of: Any, evaluations: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    killed = bench.workspace("sample", settings(), {"snapshot": network}, "resumed")
    put = type(killed.scratch).put

    def dying(self: Any, name: str, data: Any) -> None:
        put(self, name, data)
        if len(self.names()) == 2:
            raise KilledError

    with monkeypatch.context() as during:
        during.setattr(type(killed.scratch), "put", dying)
        with pytest.raises(KilledError):
            sample.run(killed)
    assert sum(evaluations) == 40 * 7
    evaluations.clear()
    _, resumed = bench.run(sample.run, "sample", settings(), {"snapshot": network}, "resumed")
    assert evaluations == [10] * 7 + [20] * 14 + [8] * 7  # the last shard, and the interpolations
    _, whole = bench.run(sample.run, "sample", settings(), {"snapshot": network})
    assert differ(images_of(resumed), images_of(whole)) == 0


def test_finished_shards_of_another_size_are_none_of_these(bench: Any, network: Ref, images_of: Any) -> None:
    """How many images a shard has is in no key, so a run that is started again may find others."""
    sample.run(bench.workspace("sample", settings(shard=20, draw=1), {"snapshot": network}, "again"))
    _, again = bench.run(sample.run, "sample", settings(shard=15, draw=1), {"snapshot": network}, "again")
    _, whole = bench.run(sample.run, "sample", settings(draw=1), {"snapshot": network})
    assert differ(images_of(again), images_of(whole)) <= 1


def test_a_damaged_finished_shard_is_drawn_again(bench: Any, network: Ref, images_of: Any, capsys: pytest.CaptureFixture[str]) -> None:
    second = settings(draw=1)  # without interpolations
    _, whole = bench.run(sample.run, "sample", second, {"snapshot": network})
    sample.run(bench.workspace("sample", second, {"snapshot": network}, "again"))
    path = sorted((bench.folder / "store" / "scratch/sample/again").glob("*/*.bytes"))[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    _, again = bench.run(sample.run, "sample", second, {"snapshot": network}, "again")
    assert differ(images_of(whole), images_of(again)) == 0
    assert "damaged" in capsys.readouterr().out


def test_a_draw_and_a_seed_are_other_images(bench: Any, network: Ref, images_of: Any) -> None:
    images = [
        images_of(bench.run(sample.run, "sample", settings(count=20, **change), {"snapshot": network})[1])
        for change in ({}, {"draw": 1}, {"seed": 1})
    ]
    assert differ(images[0], images[1]) > 20
    assert differ(images[0], images[2]) > 20


def test_interpolations_go_from_sample_to_sample_of_the_grid(bench: Any, network: Ref, images_of: Any) -> None:
    _, manifest = bench.run(sample.run, "sample", settings(), {"snapshot": network})
    images = images_of(manifest)
    with Image.open(bench.folder / "store" / manifest.path("interpolations.png")) as picture:
        scale = picture.size[0] // (8 * (8 + 1))
        small = np.asarray(picture)[::scale, ::scale]
    rows = small.reshape(6, 9, 8, 9)[:, :8, :, :8].transpose(0, 2, 1, 3)
    assert differ(rows[:, 0], images[0:12:2, 0]) <= 1
    assert differ(rows[:, 7], images[1:12:2, 0]) <= 1
    steps = np.abs(np.diff(rows.astype(int), axis=1)).mean(axis=(1, 2, 3))
    apart = np.abs(rows[:, 7].astype(int) - rows[:, 0]).mean()
    assert steps.max() < apart  # no jump from one end to the other


def test_class_conditional_samples_have_a_grid_by_class(bench: Any, network: Ref, conditional: Ref) -> None:
    files = [bench.run(sample.run, "sample", settings(count=20), {"snapshot": ref})[1].files for ref in (network, conditional)]
    assert ["classes.png" in own for own in files] == [False, True]


def test_only_the_first_draw_is_interpolated(bench: Any, network: Ref) -> None:
    _, manifest = bench.run(sample.run, "sample", settings(count=20, draw=1), {"snapshot": network})
    assert "interpolations.png" not in manifest.files


def test_an_average_that_is_not_there_is_named(bench: Any, network: Ref) -> None:
    with pytest.raises(InputError, match=r"0\.050"):
        bench.run(sample.run, "sample", settings(ema=("0.050",)), {"snapshot": network})


def test_a_grid_of_few_colour_images_is_padded(tmp_path: Any) -> None:
    images = np.full((3, 3, 32, 32), 200, np.uint8)
    images[1] = 7
    write_grid(tmp_path / "grid.png", images)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (528, 66)
        assert [grid.getpixel((66 * column + 5, 5)) for column in (0, 1, 3)] == [(200,) * 3, (7,) * 3, (0,) * 3]


@pytest.mark.slow
def test_torchrun_on_two_processes_commits_the_images_of_one(bench: Any, network: Ref, images_of: Any, tmp_path: Any) -> None:
    _, alone = bench.run(sample.run, "sample", settings(shard=10), {"snapshot": network})
    task = Task("sample", 1, settings(shard=10), {"snapshot": network}, "together", "together")
    (tmp_path / "task.json").write_text(json.dumps(task.to_json()))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "edm2core.stages.sample"]
    ran = subprocess.run([sys.executable, *command, str(tmp_path / "task.json"), "--store", str(bench.folder / "store")], timeout=120)
    assert ran.returncode == 0
    together = load(bench.store, task.ref)
    assert together is not None
    assert together.provenance["world_size"] == 2
    assert differ(images_of(alone), images_of(together)) <= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_images_that_are_not_finite_are_refused_and_never_black(
    bench: Any, network: Ref, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    forward = Denoiser.forward

    def one_diverges(self: Denoiser, noised: torch.Tensor, sigma: Any, labels: torch.Tensor | None) -> torch.Tensor:
        found = forward(self, noised, sigma, labels)
        if float(sigma) < 0.01:  # the last evaluation, after which no other one makes a NaN of it
            found[0, 0, 3, 3] = value
        return found

    monkeypatch.setattr(Denoiser, "forward", one_diverges)
    with pytest.raises(EdmError, match="1 of 20 images drawn together are not finite") as caught:
        bench.run(sample.run, "sample", settings(), {"snapshot": network})
    assert "fp32" in caught.value.do_next
