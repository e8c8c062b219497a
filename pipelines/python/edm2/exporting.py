"""Writes a snapshot into a folder of its own, with a model card, for people who have no store."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edm2 import diffusers_layout
from edm2.snapshots import Snapshot, find_snapshot
from edm2core.config.settings import CheckpointSettings, SampleSettings
from edm2core.diffusion.denoiser import Denoiser
from edm2core.diffusion.own_network import OwnNetwork
from edm2core.errors import InputError
from edm2core.registry import SOLVER_OPTIONS, is_own, own_package
from edm2core.report.results import label
from edm2core.snapshots import files
from edm2core.store.own_code import copy_code

CARD = "README.md"
CODE_GIVEN = f', code="this-folder/{files.CODE}"'  # of an own solver
USE = """\
import edm2

denoiser = edm2.find_snapshot("this-folder").load()
images = edm2.sample(denoiser, 16)  # uint8 [16, C, H, W]"""
DIFFUSERS_USE = """

from diffusers import DiffusionPipeline  # needs edm2 installed too

pipeline = DiffusionPipeline.from_pretrained("this-folder", custom_pipeline="this-folder", trust_remote_code=True)
images = pipeline(batch_size=16{code}).images"""
SHOWN = ("solver", "steps", "sigma_min", "sigma_max", "rho", "eta", "clip", "precision", "seed")  # of how it samples, in the card


def export(snapshot: Snapshot | str | Path, folder: str | Path, *, store: str | Path | None = None, diffusers: bool = False) -> Path:
    """Write a snapshot's weights (safetensors), their description and a model card into a new folder; returns the folder.

    `snapshot` is what `find_snapshot` takes or returns. `edm2.find_snapshot(folder).load()` reads it again. With `diffusers` it has a
    pipeline with code of its own too, which diffusers loads if this package is installed. An own solver's code is then in its folder
    `code`, which the pipeline is told when it is called.
    Raises InputError if the folder exists, if there is no such snapshot, or if diffusers is to load a network of own code.
    """
    chosen, target = snapshot if isinstance(snapshot, Snapshot) else find_snapshot(snapshot, store=store), Path(folder)
    if target.exists() or target.is_symlink():
        raise InputError(f"There is a {target} already.", where=str(target), do_next="Choose another folder, or remove it.")
    denoiser = chosen.load()
    if diffusers and isinstance(denoiser.network, OwnNetwork):
        what = "Its network is own code, of which the pipeline for diffusers knows nothing."
        raise InputError(what, where=denoiser.network.settings.use, do_next="Export it without diffusers: edm2 reads the folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        written = Path(temporary) / target.name
        weights = {chosen.ema: denoiser.state_dict()}
        facts = chosen.manifest.metadata if chosen.manifest else {}
        settings = CheckpointSettings(network=denoiser.network.settings, diffusion=denoiser.settings, epoch=facts.get("epoch"))
        code = facts.get("code", {})
        files.save(written, weights, settings, denoiser.pixel_scale, epoch=settings.epoch, code=code)
        for package in {**code, **(_solver_code(chosen) if diffusers else {})}:
            copy_code(package, written / files.CODE)
        description = json.loads((written / files.DESCRIPTION).read_text(encoding="utf-8"))
        if diffusers:
            diffusers_layout.write(written, denoiser, description, _sampling(chosen))
        (written / CARD).write_text(_card(chosen, denoiser, diffusers), encoding="utf-8")
        shutil.move(written, target)
    return target


def _solver_code(snapshot: Snapshot) -> dict[str, str]:
    """The code of an own solver that its recipe samples with: its package and content."""
    solver = snapshot.sampling.get("solver")
    package = own_package(solver) if isinstance(solver, str) and is_own(solver) else ""
    return {package: snapshot.code[package]} if package in snapshot.code else {}


def _sampling(snapshot: Snapshot) -> dict[str, Any]:
    """How it samples: the settings that the card shows, and all of an own solver."""
    own = {name for name in snapshot.sampling if name not in SampleSettings.model_fields or name in SOLVER_OPTIONS}
    shown = {*SHOWN, *(own if _solver_code(snapshot) else ())}
    return {name: value for name, value in snapshot.sampling.items() if name in shown}


def _card(snapshot: Snapshot, denoiser: Denoiser, diffusers: bool) -> str:
    """The model card, in Markdown behind the fields that model hubs read."""
    network = denoiser.network.settings
    manifest = snapshot.manifest
    facts, made = (manifest.metadata, manifest.provenance) if manifest else ({}, {})
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    head = ["---", "library_name: edm2", "pipeline_tag: unconditional-image-generation", "tags: [diffusion, edm2]", "---"]
    trained = {
        "data set": facts.get("dataset"),
        "recipe": snapshot.recipe or facts.get("recipe"),
        "training seed": facts.get("seed"),
        "epochs": facts.get("epoch"),
        "average of the weights": snapshot.ema if snapshot.ema == "fixed" else f"power function of relative width {snapshot.ema}",
        "images": f"{network.image_channels} x {network.resolution} x {network.resolution}",
        "classes": network.classes or "unconditional",
        "parameters": f"{parameters:,}",
        "trained on": made.get("device"),
        "code": made.get("code_version"),
        "result": manifest.ref if manifest else None,
    }
    lines = [*head, "", f"# {snapshot.title}", "", "A diffusion model that draws images, trained with edm2 (EDM2, arXiv 2312.02696).", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in trained.items() if value is not None), ""]
    lines += ["## Measured", "", *_measured(snapshot), ""]
    code = CODE_GIVEN if _solver_code(snapshot) else ""
    lines += ["## Use", "", "```python", USE + (DIFFUSERS_USE.format(code=code) if diffusers else ""), "```", ""]
    lines += ["The licence of the weights and the terms of the training images are not recorded: state them before you share this folder."]
    return "\n".join(lines) + "\n"


def _measured(snapshot: Snapshot) -> list[str]:
    sampling = snapshot.sampling
    if not snapshot.measured:
        return ["Nothing: this snapshot was exported by its key, or its run measured nothing of it."]
    how = ", ".join(f"{name} {sampling[name]}" for name in SHOWN if name in sampling)
    rows = [f"| {label(name)} | {value:.4g} |" for name, value in snapshot.measured.items()]
    return [f"Of {snapshot.samples} samples ({how}), each compared with the training images:", "", "| metric | value |", "|---|---|", *rows]
