"""The training loop's mathematics: one optimiser step of one trajectory, alone or as one of several processes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import Affine
from edm2core.diffusion.averages import Average, FixedEma, PowerEma
from edm2core.diffusion.batches import Batch, Batches
from edm2core.diffusion.compiling import Compiled, adopt
from edm2core.diffusion.curve import Window, ends_window, relative_change
from edm2core.diffusion.denoiser import Denoiser, Objective
from edm2core.diffusion.devices import autocast, compute
from edm2core.diffusion.folding import FoldedForTraining
from edm2core.diffusion.networks import build_network
from edm2core.diffusion.state_copies import Copier, as_numbers, as_tensor, averaged_weights
from edm2core.diffusion.training_schedule import learning_rate
from edm2core.errors import InputError
from edm2core.keyed_random import seed_of


@dataclass
class Trainer:
    """A trajectory at some step: weights, optimiser, averages.

    `images` is the whole training set, uint8 [N, C, H, W], on its device; so are its `labels`, int64 [N], which a class-conditional
    network needs.
    """

    settings: TrajectorySettings
    affine: Affine
    images: Tensor
    rank: int = 0
    world_size: int = 1
    labels: Tensor | None = None
    steps: int = 0
    began_at: int = 0  # the step of the checkpoint that it started from
    nonfinite_steps: int = 0
    denoiser: Denoiser = field(init=False)

    def __post_init__(self) -> None:
        training, device = self.settings.training, self.images.device
        compute(tf32=not training.exact, deterministic=training.exact)
        torch.manual_seed(seed_of(self.settings.seed, "init"))
        denoiser = Denoiser(build_network(self.settings.network), self.settings.diffusion, self.affine)
        self.denoiser = denoiser.to(device).to(memory_format=torch.channels_last).train()
        self.applied = FoldedForTraining(self.denoiser)
        self.applied.module.network.checkpointed = training.grad_checkpoint
        self.parameters = {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}
        weights = list(self.parameters.values())
        self.optimizer = torch.optim.Adam(weights, lr=training.lr, betas=training.betas, fused=True)
        sums = training.loss_reduction == "sum"
        self.gradient_scale = self.images[0].numel() if sums else 1
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16" and not sums)
        self.averages: dict[str, Average] = {} if training.ema_beta is None else {"fixed": FixedEma(weights, training.ema_beta)}
        self.averages |= {f"{s:.3f}": PowerEma(weights, s) for s in training.ema_sigma_rel}
        self.objective = Objective(self.applied.module)
        self.parallel: DistributedDataParallel | None = None
        if self.world_size > 1:
            with warnings.catch_warnings():  # what PyTorch 2.14 offers in its place, 2.11 does not know
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                self.parallel = DistributedDataParallel(self.objective, broadcast_buffers=False, gradient_as_bucket_view=True)
        self.batches = Batches(self.settings, self.affine, self.images, self.labels, len(self.denoiser.network.blocks))
        self.copier = Copier()
        self.window = Window.opened(device)

    @property
    def steps_per_epoch(self) -> int:
        return self.batches.steps_per_epoch

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return self.steps // self.steps_per_epoch

    @property
    def at_epoch_end(self) -> bool:
        return self.steps % self.steps_per_epoch == 0

    @property
    def at_window_end(self) -> bool:
        """Whether the curve has a row here."""
        return ends_window(self.steps, self.steps_per_epoch)

    def images_seen(self) -> int:
        """Images in all optimiser steps so far, over all processes."""
        return self.batches.images_before(self.steps)

    def _rate(self, step: int) -> float:
        """The learning rate of the step that follows `step` steps."""
        return learning_rate(self.settings.training, self.batches.images_before(step) / len(self.images))

    def batch(self) -> Batch:
        """All images of the coming step."""
        return self.batches.after(self.steps)

    def step(self) -> None:
        """One optimiser step over the global batch; nothing in it waits for the device."""
        batch = self.batch()
        total = len(batch.sigma)
        self.applied.refresh()
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.zero_grad(set_to_none=True)
        parts, weight = self._parts(batch)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            with contextlib.nullcontext() if last or self.parallel is None else self.parallel.no_sync():
                self.window.loss += self._differentiate(part, weight)
        self.applied.pull_back()
        self._update(total)
        self.steps += 1
        self.window.steps += 1

    def _parts(self, batch: Batch) -> tuple[list[Batch], float]:
        return batch.share(self.rank, self.world_size, self.settings.training.micro_batch)

    def _differentiate(self, part: Batch, weight: float) -> Tensor:
        """Add the gradients of the part's weighted loss to those that are there; the loss, a scalar."""
        training, device = self.settings.training, self.images.device
        with autocast(device.type, training.precision):
            loss: Tensor = (self.parallel or self.objective)(part.images, part.sigma, part.noise, part.labels, part.keys).sum() * weight
        torch.autograd.backward(self.scaler.scale(loss * (self.gradient_scale * self.world_size)))  # DDP divides by the world size
        return loss.detach()

    def compile(self, **options: Any) -> Compiled:
        """Compile the network, if loss and gradients of the coming step's first part are the same then; between steps, by all processes.

        `options` are torch.compile's. Parts of other sizes, as in an epoch's last batch, run as before.
        """
        parts, weight = self._parts(self.batch())

        def run() -> list[Tensor]:
            self.objective.zero_grad(set_to_none=True)
            with contextlib.nullcontext() if self.parallel is None else self.parallel.no_sync():  # it may fail in one process alone
                loss = self._differentiate(parts[0], weight)
            gradients = [p.grad for p in self.objective.parameters() if p.grad is not None]
            return [loss, torch.cat([gradient.flatten() for gradient in gradients])]

        network, training = self.applied.module.network, self.settings.training
        outcome = adopt(network, len(parts[0].sigma), run, training.precision, **options)
        self.objective.zero_grad(set_to_none=True)
        if self.world_size > 1:
            all_adopted = torch.tensor(float(outcome.adopted), device=self.images.device)
            dist.all_reduce(all_adopted, dist.ReduceOp.MIN)
            if outcome.adopted and not bool(all_adopted):
                network.fast = None
                return Compiled(False, "The network runs as it is, since compiling it failed in another process.")
        return outcome

    def _update(self, images: int) -> None:
        self.copier.settle()
        last = ends_window(self.steps + 1, self.steps_per_epoch)
        maps = [p for p in self.parameters.values() if p.ndim > 1] if last else []  # of all steps it would cost too much
        before = [p.detach().clone() for p in maps]
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.steps)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        skipped = (~torch.isfinite(norms.sum())).float()
        if not self.scaler.is_enabled():
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # the fused kernel leaves weights and moments alone
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.window.nonfinite += skipped
        if maps:
            self.window.relative_update = relative_change(before, maps)
        weights = list(self.parameters.values())
        for average in self.averages.values():
            average.update(weights, images)

    def gather_window(self) -> None:
        """Bring every process's part of the open window to rank 0, whose state is the one that is saved; all processes call it together."""
        if self.world_size > 1:
            dist.all_reduce(self.window.loss)
            if self.rank:
                self.window.loss.zero_()

    def close_window(self) -> dict[str, Any]:
        """The curve's row for the steps since the last one; waits for the device.

        Raises EdmError when no step of a whole window had finite gradients: the training has diverged.
        """
        if self.world_size > 1:
            dist.all_reduce(self.window.loss)
        window, self.window = self.window, Window.opened(self.images.device)
        loss, nonfinite, update = window.sums(self.steps)
        self.nonfinite_steps += nonfinite
        epoch, rate = round(self.steps / self.steps_per_epoch, 4), self._rate(self.steps - 1)
        row = {"step": self.steps, "epoch": epoch, "loss": loss, "lr": rate, "nonfinite": self.nonfinite_steps}
        return row if update is None else {**row, "relative_update": update}

    def averaged(self, name: str) -> dict[str, Tensor]:
        """The denoiser's state dict with the weights of one average; copies on the CPU."""
        return averaged_weights(self.copies("weights/", f"average/{name}/").result(), name)

    def state(self) -> dict[str, Tensor]:
        """All that continues the training with the same bits, as copies on the CPU; what are no tensors stand in `numbers` as JSON."""
        return self.copies().result()

    def copies(self, *parts: str) -> Future[dict[str, Tensor]]:
        """The state as it is now, or the tensors of it whose names begin with one of `parts`; `state` says what it holds.

        It is copied beside the forward and backward of the next step, which then waits before it changes what is not copied yet.
        """
        return self.copier.copy({name: tensor for name, tensor in self._live().items() if not parts or name.startswith(parts)})

    def _live(self) -> dict[str, Tensor]:
        """The state's tensors themselves."""
        tensors = {f"weights/{k}": v for k, v in self.denoiser.state_dict().items()}
        for name, parameter in self.parameters.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam/{moment}/{name}"] = value
        for label, average in self.averages.items():
            tensors |= {f"average/{label}/{k}": v for k, v in zip(self.parameters, average.weights, strict=True)}
        tensors |= {"window/loss": self.window.loss, "window/nonfinite": self.window.nonfinite}
        numbers = {
            "steps": self.steps,
            "nonfinite_steps": self.nonfinite_steps,
            "window_steps": self.window.steps,
            "counts": {label: average.count for label, average in self.averages.items()},
            "scaler": self.scaler.state_dict(),
        }
        tensors["numbers"] = as_tensor(numbers)
        return {key: value.detach() for key, value in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` returned; raises KeyError or RuntimeError for the state of another trajectory."""
        self.copier.settle()
        numbers = as_numbers(tensors["numbers"])
        self.denoiser.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
        moments: dict[int, dict[str, Tensor]] = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            for moment, like in (("step", tensors["window/loss"]), ("exp_avg", parameter), ("exp_avg_sq", parameter)):
                if f"adam/{moment}/{name}" in tensors:
                    stored = tensors[f"adam/{moment}/{name}"]
                    moments.setdefault(index, {})[moment] = torch.empty_like(like).copy_(stored)  # laid out as the parameter
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for label, average in self.averages.items():
            average.load([tensors[f"average/{label}/{k}"] for k in self.parameters], numbers["counts"][label])
        self.scaler.load_state_dict(numbers["scaler"])
        device = self.images.device
        loss, nonfinite = (tensors[f"window/{name}"].to(device, copy=True) for name in ("loss", "nonfinite"))
        self.window = Window(loss, nonfinite, numbers["window_steps"])
        if self.rank:
            self.window.loss.zero_()  # rank 0 has every process's part
        self.steps, self.nonfinite_steps = numbers["steps"], numbers["nonfinite_steps"]

    def start(self, tensors: Mapping[str, Tensor], ema: Mapping[str, Tensor], epoch: int | None, updates: int | None) -> None:
        """Begin where another implementation's training ended: weights and moments in `tensors` as in a state, its fixed EMA in `ema`.

        It had completed `epoch` epochs, or if that is not known as many steps as its EMA has `updates`. Power-function averages begin
        as its EMA, as if those had been the weights from the first step on. Without `tensors` the averages can be looked at and no step
        can follow. Raises InputError where neither number is known.
        """
        if epoch is None and updates is None:
            raise InputError("The checkpoint does not say how long it was trained.", do_next="Set start.epoch to its completed epochs.")
        self.steps = self.began_at = (updates or 0) if epoch is None else epoch * self.steps_per_epoch
        begun = self.state()
        counts = {label: self.images_seen() for label in self.averages} | {"fixed": self.steps if updates is None else updates}
        numbers = as_numbers(begun["numbers"]) | {"counts": counts}
        averages = {f"average/{label}/{name}": ema[name] for label in self.averages for name in self.parameters}
        fixed = {f"weights/{name}": tensor for name, tensor in ema.items() if name not in self.parameters}
        self.load_state({**begun, **fixed, **tensors, **averages, "numbers": as_tensor(numbers)})
