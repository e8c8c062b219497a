"""A network of the user's own code, behind the interface that the denoiser, training and the probe know of the U-Net."""

import inspect
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edm2core.config.settings import OwnNetworkSettings
from edm2core.diffusion.layers import PLAIN
from edm2core.diffusion.unet import Block
from edm2core.errors import InputError
from edm2core.registry import load, own_arguments

SHAPE = ("image_channels", "resolution", "classes", "augment_labels")  # what a network is told of its images, as far as it takes it


class Network(Protocol):
    """A network of one's own: an nn.Module whose constructor takes those of `SHAPE` that it needs, and settings.

    It may have an attribute `feature_blocks`, a dictionary of its submodules by name in the order they run. The probe then looks at their
    outputs [N, C, H, W], [N, T, C] or [N, C], averaged over pixels or tokens.
    """

    def __call__(self, x: Tensor, c_noise: Tensor, labels: Tensor | None, /) -> Tensor:
        """F(x; c_noise), [N, C, H, W], for the preconditioned images x [N, C, H, W], of unit variance (EDM, equation 7).

        `c_noise` [N] is ln(σ)/4. `labels` are the classes, int64 [N] from 0 to `classes`, of which the last
        stands for any class (guidance asks for it), or None where the network is unconditional or any class is meant.

        Where `augment_labels` is not 0, a fourth argument [N, augment_labels] says how the images were augmented, or None: not at all.
        """


class OwnNetwork(nn.Module):
    """The user's module as `module`, freshly initialised. Raises InputError if it is no nn.Module, or ties weights."""

    def __init__(self, settings: OwnNetworkSettings) -> None:
        super().__init__()
        self.settings, self.ops = settings, PLAIN
        self.blocks: list[Block] = []  # none of the U-Net's
        self.checkpointed = False
        self.fast: tuple[int, Callable[..., Tensor]] | None = None
        build = load(settings.use)
        taken = inspect.signature(build).parameters
        shape = {name: getattr(settings, name) for name in SHAPE if name in taken}
        self.module = build(**shape, **own_arguments(build, settings.own))
        if not isinstance(self.module, nn.Module):
            self._refuse(f"It is a {type(self.module).__name__}, no torch.nn.Module", "Return or subclass one.")
        if len(list(self.module.parameters())) != sum(1 for _ in self.module.named_parameters(remove_duplicate=False)):
            self._refuse("Two of its layers share a weight, which averages of weights cannot hold", "Give each layer its own.")

    @property
    def block_names(self) -> tuple[str, ...]:
        """The blocks that it offers to the probe."""
        return tuple(self._feature_blocks)

    @property
    def _feature_blocks(self) -> Mapping[str, nn.Module]:
        blocks = getattr(self.module, "feature_blocks", {})
        return blocks if isinstance(blocks, Mapping) else dict(blocks.named_children())

    def forward(
        self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, keys: Tensor | None = None, augment: Tensor | None = None
    ) -> Tensor:
        size, fast = self.fast or (0, self.evaluate)
        y = (fast if len(x) == size else self.evaluate)(x, c_noise.contiguous(), labels, *self._told(augment))
        if not isinstance(y, Tensor) or y.shape != x.shape:
            given = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
            self._refuse(f"Its forward returned {given} for images {list(x.shape)}", "Return as many channels and pixels as it is given.")
        return y

    def _told(self, augment: Tensor | None) -> tuple[Tensor | None, ...]:
        """The module's last argument, if it is told of augmentation."""
        return (augment,) if self.settings.augment_labels else ()

    def evaluate(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None, *augment: Tensor | None) -> Tensor:
        """What `forward` gives, without anything compiled."""
        if self.checkpointed and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(self.module, x, c_noise, labels, *augment, use_reentrant=False)
            return recomputed
        y: Tensor = self.module(x, c_noise, labels, *augment)
        return y

    def features(self, x: Tensor, c_noise: Tensor, blocks: Collection[str] | None = None) -> dict[str, Tensor]:
        """What `Denoiser.features` says, without a class."""
        offered = self._feature_blocks
        wanted = [name for name in offered if blocks is None or name in blocks]
        if unknown := set(blocks or ()) - set(wanted):
            choose = (
                f"Choose among {', '.join(offered)} for probe.blocks." if offered else "Say `probe: false`, or give it `feature_blocks`."
            )
            self._refuse(f"It offers no feature block {', '.join(sorted(unknown))}", choose)
        pooled: dict[str, Tensor] = {}

        def keep(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
            pooled[name] = _averaged(output.float())

        with ExitStack() as hooks:
            for name in wanted:
                hooks.enter_context(offered[name].register_forward_hook(partial(keep, name)))
            self.evaluate(x, c_noise, None, *self._told(None))
        return {name: pooled[name] for name in wanted}

    def _refuse(self, what: str, do_next: str) -> None:
        raise InputError(f"The own network cannot be used. {what}.", where=self.settings.use, do_next=do_next)


def _averaged(output: Tensor) -> Tensor:
    """[N, C] of a block's output [N, C, H, W], [N, T, C] or [N, C]."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output.mean(dim=1) if output.ndim == 3 else output
