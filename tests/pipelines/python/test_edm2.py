"""What `import edm2` gives: stores, runs, snapshots, measuring."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import edm2 as api
from edm2core.errors import InputError
from edm2core.own_code.source import OwnCode
from edm2core.store.local import LocalStore
from edm2core.store.uploaded_sources import put

RUN, RECIPE = "earlier-3ff39a", "digits/G dropout=0"
Edm2 = Callable[..., tuple[int, str]]
BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ({blocked}):
            raise ModuleNotFoundError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import edm2
{program}
"""


def alone(program: str, *blocked: str) -> None:
    """Run a program in a process that cannot import the blocked packages."""
    text = BLOCKED.format(blocked="".join(f"{name!r}, " for name in blocked), program=program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, timeout=250, check=False)
    assert ran.returncode == 0, ran.stderr


def test_importing_it_needs_neither_torch_nor_a_package_of_a_cluster() -> None:
    alone("assert 'evaluate' in dir(edm2)", "torch", "kfp", "kubernetes", "numpy", "pydantic")


def test_reading_results_needs_no_torch(store: Path) -> None:
    program = f"run = edm2.open({str(store)!r}).run({RUN!r}); assert len(run.results); assert len(run.samples({RECIPE!r})) == 72"
    alone(program, "torch", "kfp", "kubernetes")


@pytest.mark.slow
def test_measuring_needs_no_package_of_a_cluster(store: Path) -> None:
    program = f"run = edm2.open({str(store)!r}).run({RUN!r}); edm2.evaluate(run.snapshot({RECIPE!r}), run.data(), count=60, steps=2)"
    alone(program, "kfp", "kubernetes")


def test_a_run_gives_its_results_curve_samples_and_data(store: Path) -> None:
    (run,) = api.open(store).runs()
    assert run.id == RUN
    assert run.recipes == [RECIPE, "digits/G dropout=0.13"]
    rows = run.results
    assert {row.metric for row in rows} >= {"probe_accuracy", "pixel_accuracy"}
    assert set(rows.frame().columns) >= {"recipe", "seed", "epoch", "metric", "value"}
    assert run.curve(RECIPE)[-1]["epoch"] == 1.0
    assert run.samples(RECIPE).shape == (72, 1, 8, 8)
    assert run.data().train_images.shape[1:] == (1, 8, 8)
    assert run.report.endswith(f"/runs/{RUN}/report.html")


def test_a_snapshot_draws_what_its_run_has_drawn(store: Path) -> None:
    found = api.find_snapshot(f"{RUN}:{RECIPE}/0/1", store=store)
    assert found.title == f"{RECIPE} · seed 0 · epoch 1"
    images = api.sample(found.load(), 8, **found.sampling)
    off = np.abs(images.astype(int) - api.open(store).run(RUN).samples(RECIPE)[:8]).max()
    assert off <= 1  # rounding, since another machine has drawn them


def test_a_guide_is_given_as_a_network_and_pushes_images_away(store: Path) -> None:
    network = api.open(store).run(RUN).snapshot(RECIPE)
    other = copy.deepcopy(network)
    for weight in other.parameters():
        weight.data.mul_(0.5)
    still = {"steps": 4, "guidance": {"weight": 3.0}}
    plain, by_itself, by_another = (
        api.sample(network, 4, steps=4),
        api.sample(network, 4, guide=network, **still),
        api.sample(network, 4, guide=other, **still),
    )
    assert np.abs(by_itself.astype(int) - plain).max() <= 1  # from oneself nothing leads away
    assert np.abs(by_another.astype(int) - plain).max() > 10
    with pytest.raises(InputError, match="name a guide"):
        api.sample(network, 4, guidance={"weight": 3.0, "guide": {"epoch": 1}})
    with pytest.raises(InputError, match="no weight"):
        api.sample(network, 4, guide=other)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: run.snapshot("digits/Q"), "There is no recipe 'digits/Q'"),
        (lambda run: run.snapshot(RECIPE, seed=7), "has no seed 7"),
        (lambda run: run.snapshot(RECIPE, epoch=9), "has no epoch 9"),
        (lambda run: run.samples(RECIPE, ema="0.123"), "no samples of the EMA 0.123"),
        (lambda run: run.snapshot(RECIPE, ema=2), "relative width"),
    ],
)
def test_what_a_run_does_not_have_is_said(store: Path, ask: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ask(api.open(store).run(RUN))


def grey(count: int, side: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 255, (count, 1, side, side), np.uint8)


def test_any_callable_that_makes_images_is_measured() -> None:
    asked = []

    def make(count: int) -> torch.Tensor:
        asked.append(count)
        return torch.tensor(grey(count)) / 255

    values = api.evaluate(make, grey(300), ["fd_filters", "precision_filters"], count=300)
    assert asked == [256, 44]
    assert values["fd_filters"].value > 0
    assert 0 <= values["precision_filters"].value <= 1
    same = api.evaluate(grey(300), grey(300))
    assert same["fd_filters"].value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (grey(60)[:, 0], "four dimensions"),
        (grey(60).transpose(0, 2, 3, 1), "1 or 3 channels in the second place"),
        (grey(60) / 1.0, r"lie in \[0, 1\]; these lie in"),
        (grey(60) / 127.5 - 1, r"\[-1|lie in \[0, 1\]"),
        (grey(60).astype(int), "uint8, or floats"),
        (grey(60, 16), r"The images are \[1, 16, 16\] and the data \[1, 8, 8\]"),
        (grey(9), "needs at least 55 images; there are 9"),
        (grey(0), "There are no images"),
        (lambda count: grey(3), "was asked for 60 images and returned 3"),
    ],
)
def test_wrong_images_are_said_in_words(images: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        api.evaluate(images, grey(60))


@pytest.mark.parametrize(
    ("metrics", "words"), [(["fdd"], "no metric 'fdd'"), (["fid"], "need the weights of Inception"), (["fd"], "own features")]
)
def test_a_metric_that_cannot_be_measured_is_said(metrics: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        api.evaluate(grey(3000), grey(3000), metrics)


def test_sampling_refuses_a_setting_that_does_not_exist(store: Path) -> None:
    denoiser = api.open(store).run(RUN).snapshot(RECIPE)
    with pytest.raises(InputError, match=r"There is no setting 'stepps'\. Did you mean 'steps'"):
        api.sample(denoiser, 2, stepps=4)


def test_an_experiment_with_a_wrong_setting_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe 'digits/Q'"):
        api.run({"name": "x", "recipes": ["digits/Q"]}, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_command_draws_a_picture_and_overwrites_none(edm2: Edm2, store: Path, tmp_path: Path) -> None:
    arguments = ("sample", f"{RUN}:{RECIPE}", "--store", str(store), "--count", "4", "--steps", "2", "--out")
    code, printed = edm2(*arguments, "grid.png")
    assert code == 0, printed
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert edm2(*arguments, "images.npy")[0] == 0
    assert np.load(tmp_path / "images.npy").shape == (4, 1, 8, 8)
    for wrong, words in (
        ("grid.png", "There is a grid.png already"),
        ("grid.pdf", "neither a .png nor a .npy"),
        ("no/a.png", "no folder no"),
    ):
        code, printed = edm2(*arguments, wrong)
        assert code == 2
        assert words in printed
    assert edm2("sample", "nonsense", "--store", str(store))[0] == 2


def test_an_exported_snapshot_is_read_again_and_says_what_it_is(edm2: Edm2, store: Path, tmp_path: Path) -> None:
    arguments = ("export", f"{RUN}:{RECIPE}", "--store", str(store), "--out", "out")
    code, printed = edm2(*arguments)
    assert code == 0, printed
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| training seed | 0 |" in card
    assert str(store) not in card
    kept = api.find_snapshot(tmp_path / "out").load().state_dict()
    whole = api.open(store).run(RUN).snapshot(RECIPE).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in whole.items())
    assert "There is a out already" in edm2(*arguments)[1]


@pytest.mark.slow
def test_diffusers_loads_an_export_and_draws_the_same_images(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    found = api.find_snapshot(f"{RUN}:{RECIPE}", store=store)
    folder = str(api.export(found, tmp_path / "out", diffusers=True))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    assert np.array_equal(pipeline(batch_size=4, output_type="np").images, api.sample(found.load(), 4, **found.sampling))


@pytest.mark.slow
def test_diffusers_draws_with_an_own_solver_whose_code_the_export_carries(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    found = api.find_snapshot(f"{RUN}:{RECIPE}", store=store)
    (tmp_path / "ann_flat.py").write_text("def flat(denoise, x, sigmas, noise, *, level: float = 0.1):\n    return x * 0 + level\n")
    own = {"solver": "ann_flat:flat", "level": 2.0}
    here = api.sample(found.load(), 2, **own, code=tmp_path)
    content = OwnCode("ann_flat", tmp_path / "ann_flat.py").content
    kims = replace(found, sampling={**found.sampling, **own}, code={"ann_flat": content})
    folder = api.export(kims, tmp_path / "out", diffusers=True)
    assert 'code="this-folder/code"' in (folder / "README.md").read_text()
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), custom_pipeline=str(folder), trust_remote_code=True)
    assert np.array_equal(pipeline(batch_size=2, output_type="np", code=str(folder / "code")).images, here)


KIM = "def flat(denoise, x, sigmas, noise, *, churn: float = 0.1):\n    return x * 0 + churn\n"


def test_images_are_drawn_with_a_solver_of_ones_own(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = api.find_snapshot(f"{RUN}:{RECIPE}", store=store).load()
    (tmp_path / "kim_flat.py").write_text(KIM)
    with pytest.raises(api.InputError, match="no module or package 'kim_flat'") as error:
        api.sample(denoiser, 2, solver="kim_flat:flat")
    assert "code=" in error.value.do_next
    low, high = (api.sample(denoiser, 2, solver="kim_flat:flat", churn=churn, code=tmp_path) for churn in (-2.0, 2.0))
    assert (low.max(), high.min()) == (0, 255)
    monkeypatch.chdir(tmp_path)
    assert api.sample(denoiser, 2, solver="kim_flat:flat", churn=2.0).min() == 255
    for wrong, words in (({"chun": 2.0}, "Did you mean 'churn'"), ({"churn": "much"}, "'sample.churn' must be a number")):
        with pytest.raises(api.InputError, match=words):
            api.sample(denoiser, 2, solver="kim_flat:flat", **wrong)
    with pytest.raises(api.InputError, match="There is no setting 'own'"):
        api.sample(denoiser, 2, own={"churn": 1.0})
    (tmp_path / "kim_flat.py").write_text(KIM + "# edited\n")
    with pytest.raises(api.InputError, match="This process has another version of 'kim_flat' already"):
        api.sample(denoiser, 2, solver="kim_flat:flat", code=tmp_path)


def test_a_run_whose_solver_is_its_users_own_is_sampled_with_that_solver_from_the_store(store: Path, tmp_path: Path) -> None:
    snapshot = api.find_snapshot(f"{RUN}:{RECIPE}", store=store)
    (tmp_path / "kim_stored").mkdir()
    (tmp_path / "kim_stored" / "__init__.py").write_text(KIM)
    code = OwnCode("kim_stored", tmp_path / "kim_stored")
    put(LocalStore(store), code.content, code.copy(tmp_path / "copy"), tmp_path)
    sampling = {"solver": "kim_stored:flat", "churn": 2.0, "steps": 3}
    drawn = replace(snapshot, sampling=sampling, code={"kim_stored": code.content})
    assert api.sample(drawn.load(), 2, **drawn.sampling).min() == 255
