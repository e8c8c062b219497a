"""Linear classifiers on frozen features (DDAE: Xiang et al., arXiv 2303.09769, section 4): many cells (t, block) at once."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edm2core.config.settings import ProbeSettings
from edm2core.errors import EdmError
from edm2core.probe.cells import Cell, generator, grouped
from edm2core.probe.features import Batch


class Heads:
    """A linear layer for each cell, trained by Adam with a learning rate that falls to 0 along a cosine, epoch by epoch.

    Layers of one width are stacked. Cells share no parameter, so the sum of their losses trains each as if alone. A head's start follows
    from (seed, cell).
    """

    def __init__(
        self,
        widths: Mapping[Cell, int],
        cells: Sequence[Cell],
        classes: int,
        settings: ProbeSettings,
        device: torch.device,
        *,
        seed: int = 0,
        epochs: int | None = None,
    ) -> None:
        self.settings, self.seed, self.last = settings, seed, epochs or settings.epochs
        self.epochs = 0  # completed
        self.groups = list(grouped(cells, widths.__getitem__).values())
        self.cells = [cell for group in self.groups for cell in group]
        self.parameters: list[tuple[Tensor, Tensor]] = []  # weights [cells, classes, width] and biases [cells, classes] of each group
        for group in self.groups:
            drawn = [_start(cell, widths[cell], classes, seed) for cell in group]
            weight, bias = (torch.stack(x).to(device).requires_grad_() for x in zip(*drawn, strict=True))
            self.parameters.append((weight, bias))
        self._flat = [tensor for pair in self.parameters for tensor in pair]
        self.optimizer = torch.optim.Adam(self._flat, lr=settings.lr, fused=True)

    def train_epoch(self, batches: Iterable[Batch], on_step: Callable[[int], None] | None = None) -> dict[Cell, float]:
        """One pass over the batches; `on_step` is told each finished step. The mean loss of every cell.

        Raises EdmError where a loss is not finite, naming the cells.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (1 + math.cos(math.pi * self.epochs / self.last)) / 2
        sums = torch.zeros(len(self.cells), device=self._flat[0].device)
        count = 0
        for step, (features, labels) in enumerate(batches, 1):
            losses = torch.cat(
                [
                    F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="none").view(len(logits), -1).mean(dim=1)
                    for logits in self.logits(features)
                ]
            )
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(losses.sum())
            self.optimizer.step()
            sums += losses.detach() * len(labels)
            count += len(labels)
            if on_step:
                on_step(step)
        self.epochs += 1
        means = dict(zip(self.cells, (sums / count).tolist(), strict=True))
        if diverged := "; ".join(f"t {cell.t}, {cell.block}" for cell, loss in means.items() if not math.isfinite(loss)):
            raise EdmError(f"The probe's loss is not finite at {diverged}.", do_next="Set probe.precision: fp32, or lower probe.lr.")
        return means

    def logits(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The logits [cells, n, classes] from features [cells, n, width]. Each list has one tensor for all cells of the same width."""
        return [torch.baddbmm(b[:, None], x, w.mT) for x, (w, b) in zip(features, self.parameters, strict=True)]

    @torch.no_grad()
    def best(self, batches: Iterable[Batch], count: int) -> dict[Cell, Tensor]:
        """The `count` likeliest classes [N, count] of every image by every cell, the likeliest first."""
        likeliest = [torch.cat([logits.topk(count, dim=2).indices for logits in self.logits(features)]) for features, _ in batches]
        return dict(zip(self.cells, torch.cat(likeliest, dim=1), strict=True))

    def state(self) -> dict[str, Tensor]:
        """What continues the training after its last completed epoch with the same bits."""
        tensors = {"epochs": torch.tensor(self.epochs)}
        for number, parameter in enumerate(self._flat):
            tensors[f"{number}/value"] = parameter.detach()
            tensors |= {f"{number}/{moment}": value for moment, value in self.optimizer.state[parameter].items()}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        moments: dict[int, dict[str, Tensor]] = {}
        for number, parameter in enumerate(self._flat):
            parameter.data.copy_(tensors[f"{number}/value"])
            moments[number] = {moment: tensors[f"{number}/{moment}"] for moment in ("step", "exp_avg", "exp_avg_sq")}
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.epochs = int(tensors["epochs"])


def _start(cell: Cell, width: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weight [classes, width] and bias [classes], drawn as torch.nn.Linear does, by the cell's own name."""
    draws, bound = generator(torch.device("cpu"), seed, "head", *cell), width**-0.5
    weight, bias = (torch.empty(shape).uniform_(-bound, bound, generator=draws) for shape in ((classes, width), (classes,)))
    return weight, bias
