import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edm2core.config.settings import DiffusionSettings, NetworkSettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.errors import EdmError, InputError, IntegrityError
from edm2core.plan.manifest import Manifest, Ref
from edm2core.snapshots import files as snapshot
from edm2core.store import open_store
from edm2core.store.results import commit, upload_files

AFFINE = PixelScale(scale=0.66, offset=-0.2)


def make_denoiser(seed: int = 0) -> Denoiser:
    torch.manual_seed(seed)
    network = NetworkSettings(
        resolution=8, image_channels=1, channels=32, multipliers=(1,), blocks=2, weights="forced", attention_resolutions=(8,)
    )
    return Denoiser(build_network(network), DiffusionSettings(p_mean=-0.4), AFFINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    first, second = make_denoiser(0), make_denoiser(1)
    settings = SimpleNamespace(network=first.network.settings, diffusion=first.settings)
    half = {name: tensor.half() for name, tensor in second.state_dict().items()}
    snapshot.save(tmp_path / "snapshot", {"fixed": first.state_dict(), "0.050": half}, settings, AFFINE, epoch=3)
    return tmp_path / "snapshot"


def test_a_snapshot_gives_the_denoiser_that_was_saved(folder: Path) -> None:
    x, original, loaded = torch.randn(2, 1, 8, 8), make_denoiser(0).eval(), snapshot.load(folder)
    assert torch.equal(loaded(x, 0.5), original(x, 0.5))
    assert loaded.state_dict().keys() == original.state_dict().keys()
    assert (loaded.pixel_scale, loaded.settings, loaded.network.settings) == (AFFINE, original.settings, original.network.settings)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_each_average_is_its_own_and_comes_back_in_single_precision(folder: Path) -> None:
    loaded, saved = snapshot.load(folder, ema="0.050").state_dict(), make_denoiser(1).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    for name, tensor in saved.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-3, atol=1e-4)


def test_loading_leaves_torchs_random_numbers_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    snapshot.load(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_in_channels_last_are_saved(tmp_path: Path) -> None:
    denoiser = make_denoiser().to(memory_format=torch.channels_last)
    settings = SimpleNamespace(network=denoiser.network.settings, diffusion=denoiser.settings)
    snapshot.save(tmp_path, {"fixed": denoiser.state_dict()}, settings, AFFINE, epoch=1)
    assert torch.equal(snapshot.load(tmp_path).network.stem.weight, denoiser.network.stem.weight)


def test_an_average_that_is_not_there_is_named_with_those_there_are(folder: Path) -> None:
    with pytest.raises(InputError, match=r"'0\.1'") as raised:
        snapshot.load(folder, ema="0.1")
    assert "fixed, 0.050" in raised.value.do_next


@pytest.mark.parametrize("place", ["nothing", "", "results/snapshot/abc", "s/results/snapshot"])
def test_a_place_without_a_snapshot_is_named(tmp_path: Path, place: str) -> None:
    with pytest.raises(InputError, match="snapshot") as raised:
        snapshot.load(tmp_path / place)
    assert str(tmp_path) in raised.value.where


@pytest.mark.parametrize("damage", ["truncated", "not safetensors", "another network", "description"])
def test_damage_is_said_to_be_damage(folder: Path, damage: str) -> None:
    weights, description = folder / "ema-fixed.safetensors", folder / "snapshot.json"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "not safetensors":
        weights.write_bytes(b"\x00" * 500)
    elif damage == "another network":
        description.write_text(description.read_text().replace('"channels": 32', '"channels": 64'))
    else:
        description.write_text("{")
    with pytest.raises(IntegrityError) as raised:
        snapshot.load(folder)
    assert str(folder) in raised.value.where


def stored(folder: Path, store_uri: str) -> tuple[str, Manifest]:
    store, ref = open_store(store_uri), Ref("snapshot", hashlib.sha256(b"a key").hexdigest())
    files = upload_files(store, ref, "attempt", folder)
    manifest = Manifest("snapshot", 1, ref.key, "E · epoch 3", {}, {}, {}, "attempt", files)
    commit(store, manifest)
    return f"{store_uri}/{ref.folder}", manifest


def test_a_snapshot_is_loaded_from_a_store_and_one_flipped_byte_is_noticed(folder: Path, tmp_path: Path) -> None:
    uri, manifest = stored(folder, str(tmp_path / "store"))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(snapshot.load(uri)(x, 0.5), snapshot.load(folder)(x, 0.5))
    assert torch.equal(snapshot.load(Path(uri), ema="0.050")(x, 0.5), snapshot.load(folder, ema="0.050")(x, 0.5))
    file = tmp_path / "store" / manifest.path("ema-fixed.safetensors")
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.chmod(0o644)
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(EdmError) as raised:
        snapshot.load(uri)
    assert "ema-fixed.safetensors" in str(raised.value)
