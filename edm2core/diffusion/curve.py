"""A training's curve: a row for every few steps, summed up on the device and read once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edm2core.errors import EdmError

WINDOW = 50  # the most steps between two rows of the curve, which also has a row at the end of every epoch


def ends_window(step: int, steps_per_epoch: int) -> bool:
    """Whether the curve has a row after `step` steps."""
    return step % steps_per_epoch % WINDOW == 0


@torch.no_grad()
def relative_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """‖after - before‖ / ‖before‖ of all weights taken as one vector: a scalar, read without waiting for the device."""
    change, size = (torch.stack(torch._foreach_norm(list(t))).norm() for t in (torch._foreach_sub(list(after), list(before)), before))
    ratio: Tensor = change / size
    return ratio


@dataclass
class Window:
    """The sums that the curve's next row is made of, so far."""

    loss: Tensor  # sum over steps of this process's share of the mean loss
    nonfinite: Tensor  # steps skipped since their gradients were not finite
    steps: int = 0
    relative_update: Tensor | None = None  # of the last step

    @classmethod
    def opened(cls, device: torch.device) -> "Window":
        """A window without steps."""
        zero = torch.zeros((), device=device)
        return cls(zero, zero.clone())

    def sums(self, step: int) -> tuple[float, int, float | None]:
        """A window's mean loss, number of skipped steps and relative update of its last step, which is `step`. Waits for the device.

        Raises EdmError when no step of a whole window had finite gradients: the training has diverged.
        """
        loss, nonfinite = float(self.loss) / self.steps, int(self.nonfinite)
        if nonfinite == self.steps and self.steps > 10:
            raise EdmError(
                f"The training has diverged: no finite gradient in steps {step - self.steps + 1} to {step}.",
                do_next="Lower training.lr, lengthen training.warmup_epochs, or train in fp32 or bf16 instead of fp16.",
            )
        return loss, nonfinite, None if self.relative_update is None else float(self.relative_update)
