"""The training loop's mathematics: one optimiser step of one trajectory, alone or as one of several processes."""

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from edm2core.diffusion.batches import Batch
from edm2core.diffusion.compiling import Compiled, adopt
from edm2core.diffusion.devices import autocast
from edm2core.diffusion.folding import FoldedForTraining
from edm2core.diffusion.loss import Objective
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.diffusion.schedules import learning_rate
from edm2core.diffusion.training_state import TrainingState, Window
from edm2core.errors import EdmError
from edm2core.keyed_random import seed_of

WINDOW = 50  # the most steps between two rows of the curve, which also has a row at the end of every epoch


class Trainer(TrainingState):
    """Takes a trajectory from step to step. The folded copy of the network runs, and its gradients go to the stored weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        training = self.settings.training
        self.applied = FoldedForTraining(self.denoiser)
        self.applied.module.network.checkpointed = training.grad_checkpoint
        self.gradient_scale = self.images[0].numel() if training.loss_reduction == "sum" else 1
        self.objective = Objective(self.applied.module)
        self.parallel: DistributedDataParallel | None = None
        if self.world_size > 1:
            with warnings.catch_warnings():  # PyTorch 2.11 does not know what 2.14 offers in its place
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                self.parallel = DistributedDataParallel(self.objective, broadcast_buffers=False, gradient_as_bucket_view=True)

    @property
    def at_window_end(self) -> bool:
        """Whether the curve has a row after this step."""
        return self.steps % self.steps_per_epoch % WINDOW == 0

    def step(self) -> None:
        """One optimiser step over the global batch; nothing in it waits for the device."""
        batch = self.batches.after(self.steps)
        self.applied.refresh()
        if isinstance(self.denoiser.network, OwnNetwork):  # its dropout draws from torch's generator: each step has its own numbers
            torch.manual_seed(seed_of(self.settings.seed, self.steps, self.rank, "own network"))
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.zero_grad(set_to_none=True)
        parts, weight = self._parts(batch)
        for part in parts[:-1]:
            with self._unreduced():
                self.window.loss += self._differentiate(part, weight)
        self.window.loss += self._differentiate(parts[-1], weight)
        self.applied.pull_back()
        self._update(len(batch.sigma))
        self.steps += 1
        self.window.steps += 1

    def _parts(self, batch: Batch) -> tuple[list[Batch], float]:
        return batch.share(self.rank, self.world_size, self.settings.training.micro_batch)

    def _unreduced(self) -> contextlib.AbstractContextManager[None]:
        """The context in which gradients stay this process's own."""
        return contextlib.nullcontext() if self.parallel is None else self.parallel.no_sync()

    def _differentiate(self, part: Batch, weight: float) -> Tensor:
        """Add one micro-batch's gradients to those of the others. Returns its loss, a scalar, weighted by its share of the batch."""
        training, device = self.settings.training, self.images.device
        with autocast(device.type, training.precision):
            of_images = (self.parallel or self.objective)(*part)
            loss: Tensor = of_images.sum() * weight
        torch.autograd.backward(self.scaler.scale(loss * (self.gradient_scale * self.world_size)))  # DDP divides by the world size
        return loss.detach()

    def _update(self, images: int) -> None:
        """Apply the gradients of a batch of so many images to the weights, and update the averages with the new weights."""
        self.copier.settle()
        last = (self.steps + 1) % self.steps_per_epoch % WINDOW == 0  # of the row: measuring every step would cost too much
        maps = [p for p in self.parameters.values() if p.ndim > 1] if last else []
        before = [p.detach().clone() for p in maps]
        for group, relative in zip(self.optimizer.param_groups, self.relative_rates, strict=True):
            group["lr"] = self._rate(self.steps) * relative
        clip_norm, fused = self.settings.training.clip_norm, hasattr(self.optimizer, "_step_supports_amp_scaling")
        if clip_norm is not None or not fused:
            self.scaler.unscale_(self.optimizer)
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters.values(), clip_norm)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norms = torch.stack(torch._foreach_norm(gradients))
        skipped = (~torch.isfinite(norms.sum())).float()
        if fused:
            if not self.scaler.is_enabled():
                self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # the fused kernel then leaves weights and moments alone
            self.scaler.step(self.optimizer)
        else:
            self._step_unless(skipped > 0)
        self.scaler.update()
        self.window.nonfinite += skipped
        if maps:
            self.window.relative_update = relative_change(before, maps)
        weights = list(self.parameters.values())
        for average in self.averages.values():
            average.update(weights, images)

    @torch.no_grad()
    def _step_unless(self, skipped: Tensor) -> None:
        """A step of an optimizer that cannot skip one by itself. Where `skipped`, a scalar, all its tensors become what they were before.

        The scalar is never read, since that would wait for the device. Moments that the step made become 0.
        """

        def tensors() -> dict[tuple[str, str], Tensor]:
            state = {(name, moment): v for name, p in self.parameters.items() for moment, v in self.optimizer.state.get(p, {}).items()}
            moments = {key: v for key, v in state.items() if isinstance(v, Tensor) and v.device == skipped.device}
            return {(name, ""): p for name, p in self.parameters.items()} | moments

        before = {key: tensor.clone() for key, tensor in tensors().items()}
        self.optimizer.step()
        for key, tensor in tensors().items():
            tensor.copy_(torch.where(skipped, before[key] if key in before else torch.zeros_like(tensor), tensor))

    def _rate(self, step: int) -> float:
        """The learning rate of the step that follows `step` steps."""
        return learning_rate(self.settings.training, self.batches.images_before(step) / len(self.images))

    def compile(self, **options: Any) -> Compiled:
        """Compile the network, and keep it compiled if the coming step's first micro-batch has the same loss and gradients.

        All processes call it together, between two steps. `options` are torch.compile's. Micro-batches of other sizes, as in an epoch's
        last batch, run as before.
        """
        parts, weight = self._parts(self.batches.after(self.steps))

        def run() -> list[Tensor]:
            self.objective.zero_grad(set_to_none=True)
            with self._unreduced():  # it may fail in one process alone
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

    def gather_window(self) -> None:
        """Add up all processes' shares of the open window's loss in rank 0, whose state is saved. All processes call it together."""
        if self.world_size > 1:
            dist.all_reduce(self.window.loss)
            if self.rank:
                self.window.loss.zero_()

    def close_window(self) -> dict[str, Any]:
        """The curve's row for the steps since the last one. Waits for the device.

        Raises EdmError when no step of a whole window had finite gradients: the training has diverged.
        """
        if self.world_size > 1:
            dist.all_reduce(self.window.loss)
        window, self.window = self.window, Window(self.images.device)
        loss, nonfinite = float(window.loss) / window.steps, int(window.nonfinite)
        if nonfinite == window.steps and window.steps > 10:
            raise EdmError(
                f"The training has diverged: no finite gradient in steps {self.steps - window.steps + 1} to {self.steps}.",
                do_next="Lower training.lr, lengthen training.warmup_epochs, or train in fp32 or bf16 instead of fp16.",
            )
        self.nonfinite_steps += nonfinite
        epoch, rate = round(self.steps / self.steps_per_epoch, 4), self._rate(self.steps - 1)
        row = {"step": self.steps, "epoch": epoch, "loss": loss, "lr": rate, "nonfinite": self.nonfinite_steps}
        return row if window.relative_update is None else {**row, "relative_update": float(window.relative_update)}


@torch.no_grad()
def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """‖after - before‖ / ‖before‖ of all weights taken as one vector: a scalar, read without waiting for the device."""
    change, size = (torch.stack(torch._foreach_norm(list(t))).norm() for t in (torch._foreach_sub(list(after), list(before)), before))
    ratio: Tensor = change / size
    return ratio
