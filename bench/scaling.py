"""One training as several processes, measured: what it costs to bring their gradients together. For many GPUs: pipelines/gpu_use.py."""

import multiprocessing
import tempfile
import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch.distributed as dist

from bench.compare import Measurements, Side, Spread, ended, in_turn, ratio
from bench.network import trainer
from bench.rows import Options, Result, Row
from bench.worker import Work
from edm2core.diffusion.trainer import Trainer
from pipelines.gpu_use import NETWORKS, modelled

RECIPE, PROCESSES = "cifar10/E", 2


def several(recipe: str, batch: int, processes: int) -> Work:
    """Two steps of a training as so many processes, of which this one is the first: one whose gradients each keeps, then one with all.

    The same processes do both, as a pair of its own for each would not fit into the memory of a small machine.
    """
    meeting = Path(tempfile.mkdtemp()) / "meeting"
    context = multiprocessing.get_context("spawn")
    others: list[tuple[BaseProcess, Connection]] = []
    for rank in range(1, processes):
        here, there = context.Pipe()
        process = context.Process(target=_follow, args=(there, meeting, recipe, batch, rank, processes), daemon=True)
        process.start()
        there.close()  # so that its end is noticed
        others.append((process, here))
    trained = _joined(meeting, recipe, batch, 0, processes)

    def timed(reduced: bool) -> float:
        begun = time.perf_counter()
        for process, orders in others:
            try:
                orders.send(reduced)
            except BrokenPipeError:
                process.join()
                raise RuntimeError(f"another process of the training {ended(process.exitcode)}") from None
        _step(trained, reduced)
        for _, orders in others:
            orders.recv()
        return time.perf_counter() - begun

    def work() -> dict[str, float]:
        return {"apart_seconds": timed(reduced=False), "seconds": timed(reduced=True)}

    return work


def _follow(orders: Connection, meeting: Path, recipe: str, batch: int, rank: int, processes: int) -> None:
    trained = _joined(meeting, recipe, batch, rank, processes)
    while True:
        _step(trained, orders.recv())
        orders.send("done")


def _joined(meeting: Path, recipe: str, batch: int, rank: int, processes: int) -> Trainer:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
    return trainer(recipe, batch, rank=rank, world_size=processes)


def _step(trained: Trainer, reduced: bool) -> None:
    assert trained.parallel is not None
    with nullcontext() if reduced else trained.parallel.no_sync():
        trained.step()


SPEED = 350e12  # FLOP/s of a GPU in bf16: what the targets ask of an H100
TRAININGS = {"cifar10/E, batch 512": (42.6e9, 39_510_144, 512), "tinyimagenet/E, batch 192": (251.3e9, 62_414_976, 192)}


def table() -> str:
    """Of each training and network, efficiency on 8 to 64 GPUs: of the recipe's batch divided among them, and of that batch on each."""
    lines = ["| training | network | 8 | 16 | 32 | 64 |", "|---|---|---|---|---|---|"]
    for training, (flops, parameters, batch) in TRAININGS.items():
        for network, bandwidth in NETWORKS.items():
            cells = []
            for gpus in (8, 16, 32, 64):
                divided = modelled(flops, parameters, batch // gpus, gpus, bandwidth, SPEED)
                whole = modelled(flops, parameters, batch, gpus, bandwidth, SPEED)
                cells.append(f"{divided.efficiency:.2f} ({whole.efficiency:.2f})")
            lines.append(f"| {training} | {network} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _processes(options: Options) -> Result:
    part = {"OMP_NUM_THREADS": str(max(1, options.threads // PROCESSES)), "MKL_NUM_THREADS": str(max(1, options.threads // PROCESSES))}
    given = {"recipe": RECIPE, "batch": options.batch}
    sides = {
        "one": Side("bench.network:product_step", given, options.tuned),
        "together": Side("bench.scaling:several", {**given, "processes": PROCESSES}, {**options.tuned, **part}),
    }
    return scaled(in_turn(sides, options.repeats), options.batch)


def scaled(found: Measurements, batch: int) -> Result:
    """The overhead of bringing gradients together, and several processes against one."""
    overhead = Spread.of([100 * (run["seconds"] / run["apart_seconds"] - 1) for run in found["together"]])
    one, together = (Spread.of([batch / run["seconds"] for run in found[side]]) for side in ("one", "together"))
    return Result(
        f"reduction costs {overhead.text(1)} %; {ratio(found, 'one', 'together').text()}× one process",
        f"{one.text(1)} images/s",
        f"{together.text(1)} images/s",
    )


ROWS = [
    Row(
        "processes",
        f"training step of {RECIPE}, batch {{batch}}, on {{threads}} cores as {PROCESSES} processes; plain: as one",
        "reduction beside the backward, its cost reported",
        _processes,
    )
]
