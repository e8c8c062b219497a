from typing import Any

import pytest
import torch
from torch import nn

from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.denoiser import build_network
from edm2core.diffusion.dropout import dropout_keys
from edm2core.diffusion.layers import Conv
from edm2core.diffusion.unet import UNet
from edm2core.errors import InputError

SWITCHES: dict[str, dict[str, Any]] = {
    "C": {"weights": "plain", "norm": "group", "magnitude_preserving": False, "clip": None},
    "E": {"weights": "forced", "norm": "group", "magnitude_preserving": False, "clip": 256.0},
    "G": {"weights": "forced", "norm": "pixel", "magnitude_preserving": True, "clip": 256.0},
}


def network_of(config: str, **changed: Any) -> UNet:
    settings: dict[str, Any] = {"resolution": 8, "image_channels": 1, "channels": 32, "multipliers": (1, 2), "blocks": 2}
    torch.manual_seed(0)
    return build_network(NetworkSettings(**{**settings, "attention_resolutions": (4,), **SWITCHES[config], **changed}))


@pytest.fixture(params=list(SWITCHES))
def network(request: pytest.FixtureRequest) -> UNet:
    return network_of(request.param)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([-1.0, 0.0, 0.5])


def test_blocks_are_numbered_in_the_order_they_run_up_blocks_included(network: UNet) -> None:
    assert list(network.decoder) == ["out_1", "out_2", "out_3", "out_4", "out_5"]
    assert [name for name, block in network.decoder.items() if not block.spec.skip] == ["out_3"]
    assert [tuple(f.shape) for f in network.features(*inputs()).values()] == [(3, 64)] * 3 + [(3, 32)] * 2


def test_nothing_is_computed_after_the_last_wanted_block(network: UNet) -> None:
    ran: list[str] = []
    for name, block in network.decoder.items():
        block.register_forward_hook(lambda *_, name=name: ran.append(name))
    expected = network.features(*inputs())
    ran.clear()
    features = network.features(*inputs(), blocks=["out_2", "out_1"])
    assert ran == ["out_1", "out_2"]
    assert list(features) == ["out_1", "out_2"]
    assert all(torch.equal(features[name], expected[name]) for name in features)


def test_an_unknown_block_is_named_with_those_there_are(network: UNet) -> None:
    with pytest.raises(InputError, match=r"out_9") as raised:
        network.features(*inputs(), blocks=["out_1", "out_9"])
    assert "out_5" in raised.value.do_next


def test_every_parameter_has_a_gradient(network: UNet) -> None:
    network(*inputs()).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("network", ["G", *(pytest.param(config, marks=pytest.mark.slow) for config in "CE")], indirect=True)
def test_the_whole_forward_is_one_graph(network: UNet) -> None:
    torch.compiler.reset()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs()), network(*inputs()))


def test_convolutions_run_in_half_precision_under_autocast_and_embeddings_in_single(network: UNet) -> None:
    seen: dict[type[nn.Module], set[torch.dtype]] = {}
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, _, y: seen.setdefault(type(module), set()).add(y.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(*inputs())
    dtypes = {kind.__name__: found for kind, found in seen.items()}
    assert dtypes.pop("Conv") == {torch.bfloat16}
    assert dtypes.pop("Linear") == dtypes.pop("Fourier") == {torch.float32}


@pytest.mark.parametrize("config", ["E", "G"])
def test_no_output_of_a_block_leaves_the_clip(config: str) -> None:
    network = network_of(config, clip=0.5)
    assert {float(y.detach().abs().max()) for _, y in network.decode(*inputs())} == {0.5}


@pytest.mark.parametrize("config", ["C", "G"])
def test_there_is_dropout_only_where_keys_are_given_and_other_keys_drop_others(config: str) -> None:
    network, (x, c_noise) = network_of(config, dropout=0.5), inputs()
    keys = dropout_keys(1, len(x), len(network.blocks), x.device)
    assert torch.equal(network(x, c_noise), network(x, c_noise))
    assert torch.equal(network(x, c_noise, None, keys), network(x, c_noise, None, keys))
    for others in (dropout_keys(2, len(x), len(network.blocks), x.device), keys.flip(0), keys.flip(1), None):
        outputs = list(network.decode(x, c_noise, None, others))
        for (_, y), (_, z) in zip(outputs, network.decode(x, c_noise, None, keys), strict=True):
            assert not torch.equal(y, z)


def test_config_g_starts_with_activations_of_unit_magnitude() -> None:
    network = network_of("G", resolution=16, channels=64, multipliers=(1, 2), attention_resolutions=(8,))
    x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    magnitudes = [y.square().mean().sqrt().item() for _, y in network.decode(x, torch.zeros(8))]
    assert magnitudes == pytest.approx([1] * len(magnitudes), rel=0.25)


def test_all_convolutions_and_matrices_are_free_of_biases(network: UNet) -> None:
    assert all(parameter.ndim in (0, 2, 4) for parameter in network.parameters())
    assert sum(isinstance(module, Conv) for module in network.modules()) > 20
