import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edm2core.config import load_recipe, recipe_names
from edm2core.config.settings import NetworkSettings
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.plan.network_cost import network_cost


def _distinct() -> list[str]:
    """Recipes whose networks differ in more than their dropout, which costs nothing."""
    by_network = {}
    for name in recipe_names():
        recipe = load_recipe(name)
        by_network[recipe.network.model_dump_json(exclude={"dropout"}), recipe.diffusion.model_dump_json()] = name
    return list(by_network.values())


SLOW = ("tinyimagenet/", "cifar100/")  # the networks of cifar10 with other numbers of classes and pixels


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if any(map(name.__contains__, SLOW)) else []) for name in _distinct()]
)
def test_operations_and_parameters_are_those_of_the_network(name: str) -> None:
    recipe = load_recipe(name)
    network: NetworkSettings = recipe.network
    cost = network_cost(network, recipe.diffusion)
    with FakeTensorMode():
        denoiser = Denoiser(build_network(network), recipe.diffusion)
        images = torch.zeros(2, network.image_channels, network.resolution, network.resolution)
        labels = torch.zeros(2, dtype=torch.int64) if network.classes else None
        # the counter does not know the CPU's fused attention
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            denoiser(images, torch.ones(2), labels)
    assert cost.flops == counter.get_total_flops() / 2
    assert cost.parameters == sum(parameter.numel() for parameter in denoiser.parameters())


def test_a_network_that_is_told_of_augmentation_costs_its_map_more() -> None:
    plain, told = (load_recipe("digits/C", {"training.augment": each}) for each in (None, {}))
    more, less = network_cost(told.unet, told.diffusion), network_cost(plain.unet, plain.diffusion)
    weights = 9 * told.unet.channels
    assert (more.flops - less.flops, more.parameters - less.parameters) == (2 * weights, weights)
    assert more.parameters == sum(parameter.numel() for parameter in Denoiser(build_network(told.network), told.diffusion).parameters())
