"""Checkpoints in the form that FutureXiang/edm2's training script writes, of networks of any size."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from edm2core.config import Recipe
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.snapshots.checkpoints import fx_names, read_fx


def load_fx_tensors(denoiser: Denoiser, tensors: Mapping[str, Tensor]) -> None:
    """Fill the denoiser from tensors under FutureXiang/edm2's names, all of them and nothing else."""
    ours = {theirs: name for name, theirs in fx_names(denoiser).items()}
    denoiser.load_state_dict({ours[theirs]: tensor for theirs, tensor in tensors.items()})


def load_fx(path: Path, recipe: Recipe) -> Denoiser:
    """The denoiser with the averaged weights of a checkpoint."""
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    denoiser.load_state_dict(read_fx(path, recipe).ema)
    return denoiser.eval()


def write_checkpoint(path: Path, recipe: Recipe, steps: int) -> Path:
    """After `steps` steps, with random weights; its EMA's are 0.01 above them."""
    torch.manual_seed(1)
    denoiser = Denoiser(build_network(recipe.network), recipe.diffusion)
    state, parameters, names = denoiser.state_dict(), dict(denoiser.named_parameters()), fx_names(denoiser)
    moments = {
        place: {
            "step": torch.tensor(float(steps)),
            "exp_avg": torch.full_like(state[name], 1e-3),
            "exp_avg_sq": torch.full_like(state[name], 1e-4),
        }
        for place, name in enumerate(names)
        if name in parameters
    }
    average = {f"ema_model.{theirs}": state[name] + (0.01 if name in parameters else 0.0) for name, theirs in names.items()}
    torch.save(
        {
            "MODEL": {f"module.{theirs}": state[name] for name, theirs in names.items()},
            "EMA": {"initted": torch.tensor(True), "step": torch.tensor(steps), **average},
            "opt": {"state": moments, "param_groups": [{"params": list(range(len(names)))}]},
        },
        path,
    )
    return path
