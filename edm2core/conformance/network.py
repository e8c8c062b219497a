"""Checks of an own network."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from edm2core.config.settings import AugmentSettings, DiffusionSettings, OwnNetworkSettings, TrainingSettings, TrajectorySettings
from edm2core.conformance import Check, Images, Outcome, ok, problem
from edm2core.data.scale import PixelScale
from edm2core.diffusion.devices import pick_device
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.trainer import Trainer
from edm2core.registry import load

CLOSE = 0.1  # the largest relative difference of half precision


def checks(address: str, own: dict[str, Any], images: Images) -> dict[str, Check]:
    """The checks by name, in their order."""
    shape = {"resolution": images.resolution, "image_channels": images.channels, "classes": images.classes}
    augment = AugmentSettings() if "augment_labels" in inspect.signature(load(address)).parameters else None
    told = augment.labels if augment else 0
    settings = OwnNetworkSettings.model_validate({"use": address, **shape, "augment_labels": told, "own": own})
    device = pick_device()

    def built() -> OwnNetwork:
        torch.manual_seed(0)
        return OwnNetwork(settings).to(device)

    def inputs(count: int) -> tuple[Tensor, Tensor, Tensor | None]:
        x = torch.randn(count, *images.shape, generator=torch.Generator().manual_seed(count))
        labels = torch.arange(count, device=device).flip(0) % (images.classes + 1) if images.classes else None  # the last stands for any
        return x.to(device), torch.linspace(-1.5, 1.1, count).to(device), labels

    def builds() -> Outcome:
        parameters = sum(p.numel() for p in built().parameters())
        with torch.device("meta"):
            OwnNetwork(settings)  # so a snapshot is read, and operations are counted
        return ok(f"it is built, with {parameters:,} parameters")

    def shapes() -> Outcome:
        network = built().eval()
        for count in (1, 3):
            x, c_noise, labels = inputs(count)
            network(x, c_noise, labels)
            network(x, c_noise, None)
        return ok(f"images {list(x.shape)} give images of that shape, with classes and without")

    def gradients() -> Outcome:
        network = built().train()
        x, c_noise, labels = inputs(4)
        how = torch.ones(4, told, device=device) if told else None
        (network(x, c_noise, labels, augment=how) * torch.randn_like(x)).sum().backward()
        without = [name for name, p in network.module.named_parameters() if p.requires_grad and p.grad is None]
        wrong = [name for name, p in network.module.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
        if without:
            use = "Use them in every forward, or remove them: several processes cannot train what gets no gradient."
            return problem(f"these parameters get no gradient: {', '.join(without[:5])}", use)
        if wrong:
            return problem(f"gradients are not finite: {', '.join(wrong[:5])}", "Look for divisions by 0 and roots of 0.")
        return ok("every parameter gets a finite gradient")

    def autocast() -> Outcome:
        network = built().eval()
        x, c_noise, labels = inputs(4)
        with torch.no_grad():
            whole = network(x, c_noise, labels)
            with torch.autocast(device.type, torch.bfloat16):
                half = network(x, c_noise, labels).float()
        difference = float((half - whole).norm() / whole.norm().clamp_min(1e-6))
        if not difference < CLOSE:
            do_next = "Train it with training.precision: fp32, or keep sums in float32."
            return problem(f"in bf16 its output is off by {difference:.0%}", do_next)
        return ok(f"autocast to bf16 changes its output by {difference:.1%}")

    def determinism() -> Outcome:
        x, c_noise, labels = inputs(3)
        with torch.no_grad():
            one, other = (built().eval()(x, c_noise, labels) for _ in range(2))
            alone = built().eval()(x[:1], c_noise[:1], None if labels is None else labels[:1])
        if not torch.equal(one, other):
            do_next = "Draw random numbers only in training, from torch's own generator."
            return problem("the same seed and images give other numbers", do_next)
        if float((alone - one[:1]).abs().max()) > 1e-3:
            do_next = "Use no batch statistics in eval mode: samples would depend on the batch."
            return problem("an image's output depends on the images beside it", do_next)
        return ok("the same seed and images give the same bits, whatever images stand beside")

    def resume() -> Outcome:
        copy.deepcopy(built())
        training = TrainingSettings(epochs=10, batch=4, lr=1e-3, exact=True, augment=augment)
        trajectory = TrajectorySettings(network=settings, diffusion=DiffusionSettings(), training=training, seed=0)
        pixels = torch.randint(0, 256, (8, *images.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
        labels = torch.arange(8, device=device) % max(images.classes, 1)
        straight, cut, again = (Trainer(trajectory, PixelScale(), pixels, 0, 1, labels) for _ in range(3))
        cut.step()
        again.load_state(cut.state())
        for trainer, steps in ((straight, 3), (again, 2)):
            for _ in range(steps):
                trainer.step()
        a, b = straight.state(), again.state()
        different = [name for name in a if name != "numbers" and not torch.equal(a[name], b[name])]
        if different:
            keep = "Keep what changes while training in parameters and buffers, and draw random numbers from torch's generator alone."
            return problem(f"a training that was stopped goes on with other bits: {different[0]}", keep)
        return ok("a training that was stopped goes on with the same bits")

    def blocks() -> Outcome:
        network = built().eval()
        x, c_noise, _ = inputs(2)
        if not network.block_names:
            return Outcome("note", "it offers no feature_blocks, so it cannot be probed: say `probe: false`")
        with torch.no_grad():
            pooled = network.features(x, c_noise)
        widths = ", ".join(f"{name} {rows.shape[1]}" for name, rows in pooled.items())
        return ok(f"the probe can look at these blocks, of so many features: {widths}")

    named = (builds, shapes, gradients, autocast, determinism, resume)
    return {check.__name__: check for check in named} | {"feature blocks": blocks}
