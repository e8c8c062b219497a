"""edm2 plan --summary: what an experiment takes on this machine."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.store import open_store
from edm2core.store.results import manifests
from edm2core.store.runs import load_plan
from pipelines import summary

Edm2 = Callable[..., tuple[int, str]]
ARCHIVE, RUN = Path(__file__).parents[1] / "data" / "earlier_store.tar.xz", "earlier-3ff39a"
DEMO = ("plan", "demo", "--summary")


def device_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(summary, "device_here", lambda with_gpu=True: name)


def test_it_fits_on_a_screen_and_makes_no_store(edm2: Edm2, tmp_path: Path) -> None:
    code, printed = edm2(*DEMO)
    assert code == 0
    assert len(printed.splitlines()) <= 24
    assert max(map(len, printed.splitlines()[1:])) <= 120  # the first line has the path of the store
    assert "digits/C, digits/E, digits/G" in printed
    assert not (tmp_path / "edm2-store").exists()


def test_a_cpu_is_called_so(edm2: Edm2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "gpus", lambda: 0)
    assert "Not measured on this CPU" in edm2(*DEMO)[1]


def test_what_the_stores_runs_have_measured_on_this_device_tells_how_long_it_takes(
    edm2: Edm2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    store = open_store(str(tmp_path / "store"))
    made = manifests(store, load_plan(store, RUN)[1])
    device = next(manifest.provenance["device"] for ref, manifest in made.items() if ref.stage == "snapshot")
    device_is(monkeypatch, device)
    printed = edm2(*DEMO, "--store", "store")[1]
    assert "measured in" in printed
    assert f"On this machine ({device}" in printed
    device_is(monkeypatch, "another CPU, 2 cores")
    printed = edm2(*DEMO, "--store", "store")[1]
    assert "measured in" not in printed
    assert "no time is known.\nThe first run in this store measures it." in printed


def test_a_gpu_that_was_not_measured_is_said_to_be(edm2: Edm2, monkeypatch: pytest.MonkeyPatch) -> None:
    device_is(monkeypatch, "NVIDIA H100 80GB HBM3")
    printed = edm2(*DEMO)[1]
    assert "not measured on this GPU; assumed 35% of its peak" in printed
    assert "On this machine (NVIDIA H100 80GB HBM3" in printed
    device_is(monkeypatch, "NVIDIA Unheard 9000")
    assert "assumed" not in edm2(*DEMO)[1]
