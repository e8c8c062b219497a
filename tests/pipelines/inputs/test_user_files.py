"""What a user brings reaches tasks that cannot see the user's disk."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from PIL import Image
from rich.console import Console

from edm2core.errors import InputError
from edm2core.plan.experiment import load_experiment
from edm2core.plan.plan import plan
from edm2core.plan.tasks import Task
from edm2core.stages import extractor, prepare
from edm2core.store import Store, open_store
from edm2core.store.results import load
from edm2core.store.uploaded_sources import is_stored
from edm2core.worker.main import make
from pipelines.cli.compile import command as compile
from pipelines.inputs.user_files import brought, resolve, upload
from pipelines.run.places import here
from pipelines.run.run_experiment import run


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDM2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EDM2_WORK", str(tmp_path / "work"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (folder / part / name).mkdir(parents=True)
            for shade in range(2):
                pixels = np.full((8, 8, 3), 90 * shade + 60 * number, np.uint8)
                pixels[0] = 0
                Image.fromarray(pixels).save(folder / part / name / f"{shade}.png")
    return folder


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"fc.bias": torch.zeros(3)}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def planned(tmp_path: Path, source: Path | str, **settings: Any) -> list[Task]:
    """The tasks of an experiment on images of the user's."""
    recipe = {
        "extends": "digits/C",
        "name": "mine/C",
        "data": {"format": "images", "source": str(source), "resolution": 8, "standardize": True},
        "network": {"image_channels": 3},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    experiment = {"name": "mine", "recipes": ["mine.yaml"], "epochs": [1], "metrics": [], "probe": False, **settings}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(experiment))
    read = load_experiment(tmp_path / "e.yaml")
    return plan(read, resolve(read))


def images(store: Store, task: Task, folder: Path) -> bytes:
    manifest = load(store, task.ref)
    assert manifest is not None
    name = "train_images.npy"
    return store.fetch(manifest.path(name), folder, manifest.files[name]).read_bytes()


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_a_path_of_the_users_is_uploaded_once_and_pods_need_it_no_more(pictures: Path, tmp_path: Path, packed: bool) -> None:
    source = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", pictures)) if packed else pictures
    [task] = brought(planned(tmp_path, source))
    here, cluster, said = open_store(str(tmp_path / "here")), open_store(str(tmp_path / "cluster")), []
    make(task, here, prepare.run)
    upload([task], cluster, said.append)
    upload([task], cluster, said.append)
    assert said == [f"uploading {source} to {cluster.uri}"]
    [stored] = cluster.list("sources/")
    assert stored.path.removesuffix(".tar") == f"sources/{task.settings['digest'].removeprefix('sha256:')}"
    shutil.rmtree(pictures)
    (tmp_path / "packed.zip").unlink(missing_ok=True)
    make(task, cluster, prepare.run)
    assert images(cluster, task, tmp_path) == images(here, task, tmp_path)
    cluster.delete(stored.path)
    upload([task], cluster, said.append)  # its result is there: nobody needs the source
    assert len(said) == 1


def test_weights_named_by_the_beginning_of_their_digest_are_found_by_it(tmp_path: Path, weights: Path) -> None:
    digest = f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"[:15]
    settings = {"extractor": "inception", "source": str(weights), "digest": digest}
    task, store = Task("extractor", 1, settings, {}, "k", "Inception features"), open_store(str(tmp_path / "store"))
    upload([task], store, lambda line: None)
    assert [entry.path for entry in store.list("sources/")] == [f"sources/{digest.removeprefix('sha256:')}"]
    weights.unlink()
    with pytest.raises(InputError, match="These are not the weights of"):
        make(task, store, extractor.run)


def test_a_source_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for(pictures: Path, tmp_path: Path) -> None:
    [task] = brought(planned(tmp_path, pictures))
    store = open_store(str(tmp_path / "store"))
    shutil.rmtree(pictures)
    with pytest.raises(InputError, match="does not exist") as caught:
        make(task, store, prepare.run)
    assert str(pictures) in caught.value.where
    assert f"{store.uri}/sources/{task.settings['digest'].removeprefix('sha256:')}" in caught.value.where
    assert "edm2 submit" in caught.value.do_next
    with pytest.raises(InputError, match="does not exist"):
        upload([task], store, lambda line: None)


def test_another_folder_at_the_same_path_on_the_pod_is_refused(pictures: Path, tmp_path: Path) -> None:
    [task] = brought(planned(tmp_path, pictures))
    (pictures / "train" / "cat" / "0.png").unlink()
    with pytest.raises(InputError, match="digest is wrong"):
        make(task, open_store(str(tmp_path / "store")), prepare.run)


def test_a_run_elsewhere_uploads_first(pictures: Path, tmp_path: Path) -> None:
    tasks = planned(tmp_path, pictures)
    elsewhere = replace(here(str(tmp_path / "store"), jobs=1, processes=1), shares_disk=False)
    done = run(load_experiment(tmp_path / "e.yaml"), elsewhere, Console(quiet=True))
    assert is_stored(done.store, brought(tasks)[0].settings["digest"])
    assert load(done.store, tasks[-1].ref) is not None


def test_a_run_here_copies_nothing(pictures: Path, tmp_path: Path) -> None:
    planned(tmp_path, pictures)
    done = run(load_experiment(tmp_path / "e.yaml"), here(str(tmp_path / "store"), jobs=1, processes=1), Console(quiet=True))
    assert list(done.store.list("sources/")) == []


def test_compile_says_what_it_does_not_upload(pictures: Path, tmp_path: Path) -> None:
    [task] = brought(planned(tmp_path, pictures))
    arguments = [str(tmp_path / "e.yaml"), "--cluster", "lab", "--out", str(tmp_path / "package.yaml")]
    printed = CliRunner().invoke(compile, arguments, catch_exceptions=False).output
    assert f"These sources are not uploaded, which `edm2 submit` does: {task.settings['digest']}" in printed


def test_digits_need_no_upload(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump({"name": "d", "recipes": ["digits/C"], "epochs": [1], "metrics": ["fd"]}))
    read = load_experiment(tmp_path / "e.yaml")
    assert brought(plan(read, resolve(read))) == []


def test_an_imported_reference_is_looked_into_when_the_experiment_is_read(tmp_path: Path, weights: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(64), sigma=np.eye(64))
    (tmp_path / "e.yaml").write_text(
        "name: x\nrecipes: [cifar10/C]\nmetrics: [fid]\ninception_weights: weights.pth\noverrides: {reference: {source: theirs.npz, "
        "extractor: inception, count: 50000, resolution: 32, origin: a page}}\n"
    )
    with pytest.raises(InputError, match="these features have 2048 dimensions"):
        resolve(load_experiment(tmp_path / "e.yaml"))
