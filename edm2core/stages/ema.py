"""Mixes a power-function average of any width from those that training stored (EDM2: arXiv 2312.02696, section 3.2)."""

from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from torch import Tensor

from edm2core.config.fields import weights_file
from edm2core.config.settings import CheckpointSettings
from edm2core.provenance.made_by import several_of
from edm2core.snapshots import files as snapshot
from edm2core.snapshots.three_bytes import unpacked
from edm2core.store.averages import mixture
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: the files of a snapshot with the one average that was asked for."""
    given, sigma_rel = work.inputs["snapshot"], work.settings["sigma_rel"]
    epoch, name = given.manifest.metadata["epoch"], f"{sigma_rel:.3f}"
    mixing = mixture(work.store, given.manifest, sigma_rel)
    of_way = mixing.rounding_share(lambda width: given.path(weights_file(width)))
    if not work.settings.get("force"):
        mixing.must_be_fine(name, work.task.title, of_way)
    folder = given.all()
    denoiser = snapshot.load(folder, mixing.widths[0])
    mixed = {key: torch.zeros(weight.shape, dtype=torch.float64) for key, weight in denoiser.named_parameters()}
    *stored, own = mixing.mix.coefficients.reshape(-1, len(mixing.widths))
    for number, (manifest, shares) in enumerate(zip(mixing.stored.values(), stored, strict=True), start=1):
        with TemporaryDirectory(dir=work.out.parent) as downloads:  # all averages together may be large
            for file, share in zip(map(weights_file, mixing.widths), shares, strict=True):
                _add(mixed, work.store.fetch(manifest.path(file), Path(downloads), manifest.files[file]), share)
        work.progress(number, len(stored), unit="averages")
    for width, share in zip(mixing.widths, own, strict=True):
        _add(mixed, folder / weights_file(width), share)
    weights = {**denoiser.state_dict(), **{key: weight.float() for key, weight in mixed.items()}}
    settings = CheckpointSettings(network=denoiser.network.settings, diffusion=denoiser.settings, epoch=epoch)
    code = given.manifest.metadata.get("code", {})
    snapshot.save(work.out, {name: weights}, settings, denoiser.pixel_scale, epoch=epoch, code=code)
    work.metadata |= {"code": code} if code else {}
    digests = {str(e): manifest.digest for e, manifest in mixing.stored.items()}
    work.metadata |= {"epoch": epoch, "emas": [name], "error": round(mixing.mix.error, 6), "averages": digests}
    work.metadata |= {"rounding": mixing.rounding, "rounding_of_way": of_way}
    if several := several_of([*mixing.stored.values(), given.manifest]):
        work.metadata["sciences"] = several


def _add(total: dict[str, Tensor], file: Path, share: float) -> None:
    tensors = safetensors.torch.load_file(file)
    for name, value in total.items():
        value.add_(unpacked(tensors, name), alpha=float(share))


if __name__ == "__main__":
    main("ema", run)
