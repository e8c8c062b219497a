"""The state of a training at some step, and its form as named tensors, which are copied while the next step runs."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from edm2core.config.settings import TrajectorySettings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.averages import Average, FixedEma, PowerEma
from edm2core.diffusion.batches import Batches
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.diffusion.devices import compute
from edm2core.diffusion.optimizers import Optimizer, by_kind
from edm2core.errors import InputError
from edm2core.keyed_random import seed_of
from edm2core.registry import OPTIMIZERS, load


@dataclass
class TrainingState:
    """A trajectory at some step: weights, optimiser, averages and the curve's open row.

    `images` is the whole training set, uint8 [N, C, H, W], on its device. So are its `labels`, int64 [N], which a class-conditional
    network needs.
    """

    settings: TrajectorySettings
    pixel_scale: PixelScale
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
        denoiser = Denoiser(build_network(self.settings.network), self.settings.diffusion, self.pixel_scale)
        self.denoiser = denoiser.to(device).to(memory_format=torch.channels_last).train()
        self.parameters = {name: p for name, p in self.denoiser.named_parameters() if p.requires_grad}
        weights = list(self.parameters.values())
        build: Optimizer = load(OPTIMIZERS[training.optimizer].code)
        self.optimizer = build(*by_kind(self.denoiser), training.lr, **training.options_of("optimizer"))
        self.relative_rates = [group["lr"] / training.lr for group in self.optimizer.param_groups]
        scales = training.precision == "fp16" and training.loss_reduction == "mean"
        self.scaler = torch.amp.GradScaler(device.type, enabled=scales)
        self.averages: dict[str, Average] = {} if training.ema_beta is None else {"fixed": FixedEma(weights, training.ema_beta)}
        self.averages |= {f"{s:.3f}": PowerEma(weights, s) for s in training.ema_sigma_rel}
        self.batches = Batches(self.settings, self.pixel_scale, self.images, self.labels, len(self.denoiser.network.blocks))
        self.copier = Copier()
        self.window = Window(device)

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

    def images_seen(self) -> int:
        """Images in all optimiser steps so far, over all processes."""
        return self.batches.images_before(self.steps)

    def state(self) -> dict[str, Tensor]:
        """All that continues the training with the same bits, as copies on the CPU. Its plain numbers are JSON in the tensor `numbers`."""
        return self.copies().result()

    def copies(self, *parts: str) -> Future[dict[str, Tensor]]:
        """The state as it is now, or only the tensors whose names begin with one of `parts`.

        It is copied during the forward and backward of the next step, which then waits before it changes what is not copied yet.
        """
        return self.copier.copy({name: tensor for name, tensor in self._live().items() if not parts or name.startswith(parts)})

    def _live(self) -> dict[str, Tensor]:
        """The tensors of the state themselves, not copies."""
        tensors = {f"weights/{k}": v for k, v in self.denoiser.state_dict().items()}
        remembered = dict[str, float]()  # what is no tensor; torch's own optimizers have none
        for name, parameter in self.parameters.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                (tensors if isinstance(value, Tensor) else remembered)[f"{self.settings.training.optimizer}/{moment}/{name}"] = value
        for label, average in self.averages.items():
            tensors |= {f"average/{label}/{k}": v for k, v in zip(self.parameters, average.weights, strict=True)}
        numbers = {
            "steps": self.steps,
            "nonfinite_steps": self.nonfinite_steps,
            "window_steps": self.window.steps,
            "counts": {label: average.count for label, average in self.averages.items()},
            "scaler": self.scaler.state_dict(),
        }
        numbers |= {"optimizer": remembered} if remembered else {}
        tensors |= {"window/loss": self.window.loss, "window/nonfinite": self.window.nonfinite, "numbers": _as_tensor(numbers)}
        return {key: value.detach() for key, value in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Continue from what `state` returned. Raises KeyError or RuntimeError for the state of another trajectory."""
        self.copier.settle()
        numbers = _as_numbers(tensors["numbers"])
        self.denoiser.load_state_dict({k.removeprefix("weights/"): v for k, v in tensors.items() if k.startswith("weights/")})
        self._load_optimizer({**tensors, **numbers.get("optimizer", {})})
        for label, average in self.averages.items():
            average.load([tensors[f"average/{label}/{k}"] for k in self.parameters], numbers["counts"][label])
        self.scaler.load_state_dict(numbers["scaler"])
        self.window = Window(self.images.device, numbers["window_steps"])
        self.window.nonfinite.copy_(tensors["window/nonfinite"])
        if self.rank == 0:  # which has every process's part of the loss
            self.window.loss.copy_(tensors["window/loss"])
        self.steps, self.nonfinite_steps = numbers["steps"], numbers["nonfinite_steps"]

    def _load_optimizer(self, remembered: Mapping[str, Tensor | float]) -> None:
        """Give the optimizer the state that `_live` took from it."""
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        ordered = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]  # torch numbers them so
        numbers = {names[id(parameter)]: number for number, parameter in enumerate(ordered)}
        state: dict[int, dict[str, Tensor | float]] = {}
        for key, stored in remembered.items():
            optimizer, _, rest = key.partition("/")
            moment, _, name = rest.partition("/")
            if optimizer == self.settings.training.optimizer:
                state.setdefault(numbers[name], {})[moment] = _copied(stored, moment, self.parameters[name])
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def start(self, tensors: Mapping[str, Tensor], ema: Mapping[str, Tensor], epoch: int | None, updates: int | None) -> None:
        """Begin where another implementation's training ended. `tensors` are its weights and moments as in a state, `ema` its fixed EMA.

        It had completed `epoch` epochs; if that is unknown, it had taken as many steps as its EMA has `updates`. Power-function averages
        begin as its EMA, as if those had been the weights from the first step on. Without `tensors` the averages can be looked at, but no
        step can follow. Raises InputError if neither number is known.
        """
        if epoch is None and updates is None:
            raise InputError("The checkpoint does not say how long it was trained.", do_next="Set start.epoch to its completed epochs.")
        self.steps = self.began_at = (updates or 0) if epoch is None else epoch * self.steps_per_epoch
        begun = self.state()
        counts = {label: self.images_seen() for label in self.averages} | {"fixed": self.steps if updates is None else updates}
        numbers = _as_numbers(begun["numbers"]) | {"counts": counts}
        averages = {f"average/{label}/{name}": ema[name] for label in self.averages for name in self.parameters}
        fixed = {f"weights/{name}": tensor for name, tensor in ema.items() if name not in self.parameters}
        self.load_state({**begun, **fixed, **tensors, **averages, "numbers": _as_tensor(numbers)})


class Window:
    """The sums that the curve's next row is made of, so far."""

    def __init__(self, device: torch.device, steps: int = 0) -> None:
        self.steps = steps
        self.loss = torch.zeros((), device=device)  # sum over steps of this process's share of the mean loss
        self.nonfinite = torch.zeros((), device=device)  # steps skipped since their gradients were not finite
        self.relative_update: Tensor | None = None  # of the last step


class Copier:
    """Copies tensors off the device while the next step runs; `settle` waits before that step changes them."""

    def __init__(self) -> None:
        self.waited_s = 0.0  # how long all steps together have waited
        self._thread = ThreadPoolExecutor(1, "copy")
        self._copying: list[Future[dict[str, Tensor]]] = []

    def copy(self, tensors: Mapping[str, Tensor]) -> Future[dict[str, Tensor]]:
        """The tensors as they are now, on the CPU. A GPU's are copied within the GPU first, so that no step waits."""
        finished, rest = {}, {}
        for name, tensor in tensors.items():
            if tensor.is_cuda:
                rest[name] = tensor.clone(), torch.empty_like(tensor, device="cpu")
            elif name.startswith(("weights/", "window/")):  # a step changes these from its beginning on
                finished[name] = tensor.clone()
            else:  # memory is allocated here, since a thread would get fresh pages from the kernel each time
                rest[name] = tensor, torch.empty_like(tensor)
        done = torch.cuda.Event() if any(tensor.is_cuda for tensor in tensors.values()) else None  # type: ignore[no-untyped-call]
        if done is not None:
            done.record()

        def work() -> dict[str, Tensor]:
            with contextlib.nullcontext() if done is None else _stream_after(done):
                return finished | {name: memory.copy_(tensor) for name, (tensor, memory) in rest.items()}

        future = self._thread.submit(work)
        if done is None:
            self._copying.append(future)
        return future

    def settle(self) -> None:
        """Wait until nothing is being copied from memory that the coming step changes."""
        begun = time.monotonic()
        while self._copying:
            self._copying.pop().result()
        self.waited_s += time.monotonic() - begun


def averaged_weights(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The denoiser's state dict with the weights of one average, from a state or its parts `weights/` and `average/`."""
    parts = ("weights/", f"average/{name}/")
    return {key.removeprefix(part): value for part in parts for key, value in state.items() if key.startswith(part)}


def _copied(stored: Tensor | float, moment: str, parameter: Tensor) -> Tensor | float:
    """A copy of what an optimizer remembers of a parameter, on its device and laid out as it is if it has the parameter's shape.

    A number of steps stays where it is, since torch's optimizers decide that by themselves.
    """
    if not isinstance(stored, Tensor):
        return stored
    return torch.empty_like(parameter if moment != "step" and stored.shape == parameter.shape else stored).copy_(stored)


def _as_tensor(numbers: Mapping[str, Any]) -> Tensor:
    """Numbers as JSON in a tensor of bytes."""
    return torch.frombuffer(bytearray(json.dumps(numbers).encode()), dtype=torch.uint8)


def _as_numbers(tensor: Tensor) -> dict[str, Any]:
    """The numbers that `_as_tensor` was given."""
    numbers: dict[str, Any] = json.loads(bytes(tensor.numpy()))
    return numbers


@contextlib.contextmanager
def _stream_after(event: torch.cuda.Event) -> Iterator[None]:
    """A CUDA stream that begins after the event. On leaving, its copies are done."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_event(event)
    with torch.cuda.stream(stream):
        yield
    stream.synchronize()
