"""Reads another implementation's checkpoint: a snapshot to look at, and a state that training goes on from."""

import safetensors.torch

from edm2core.config.settings import CheckpointSettings
from edm2core.data.scale import PixelScale
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.checkpoints import read_fx
from edm2core.worker.fetching import brought
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace

STATE = "state.safetensors"


def run(work: Workspace) -> None:
    """Result: the files of a snapshot with the fixed EMA, and a state if the checkpoint has an optimiser."""
    settings = CheckpointSettings.among(work.settings)
    checkpoint = read_fx(brought(work), settings)
    snapshot.save(work.out, {"fixed": checkpoint.ema}, settings, PixelScale(), epoch=settings.epoch)
    if checkpoint.weights is not None and checkpoint.adam is not None:
        weights = {f"weights/{name}": tensor for name, tensor in checkpoint.weights.items()}
        moments = {f"adam/{moment}/{name}": tensor for name, state in checkpoint.adam.items() for moment, tensor in state.items()}
        safetensors.torch.save_file({**weights, **moments}, work.out / STATE)
    work.metadata |= {
        "implementation": "FutureXiang/edm2",
        "checkpoint": work.settings["digest"],
        "epoch": settings.epoch,
        "updates": checkpoint.updates,
        "emas": ["fixed"],
    }


if __name__ == "__main__":
    main("start", run)
