"""A snapshot's files: `ema-<name>.safetensors` for each average of the weights, and `snapshot.json`, which rebuilds the denoiser."""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from edm2core.config.fields import weights_file
from edm2core.config.settings import CheckpointSettings, DiffusionSettings, Recipe, TrajectorySettings, network_settings
from edm2core.data.scale import PixelScale
from edm2core.diffusion.denoiser import Denoiser, build_network
from edm2core.errors import InputError, IntegrityError
from edm2core.plan.manifest import Ref
from edm2core.store import default_store, find_store, open_store, split_address
from edm2core.store.own_code import bring_for_good, import_from, is_here
from edm2core.store.results import load as load_manifest

DESCRIPTION = "snapshot.json"
CODE = "code"  # the folder of an exported snapshot with its network's own code
DenoiserSettings = Recipe | TrajectorySettings | CheckpointSettings  # they hold the settings that a denoiser is built from


def save(
    folder: str | Path,
    averages: Mapping[str, Mapping[str, Tensor]],
    settings: DenoiserSettings,
    pixel_scale: PixelScale,
    *,
    epoch: int | None,
    code: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a snapshot. `averages` are state dicts of the denoiser by the average's name; `epoch` counts completed epochs, if known.

    `code` is the content of the network's own code by its package, as keys hold it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for ema, tensors in averages.items():
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / weights_file(ema))
    description = {
        "network": settings.network.model_dump(mode="json"),
        "diffusion": settings.diffusion.model_dump(mode="json"),
        "affine": asdict(pixel_scale),
        "epoch": epoch,
        "emas": list(averages),
        **({"code": dict(code)} if code else {}),
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def load(folder_or_uri: str | Path, ema: str = "fixed") -> Denoiser:
    """The denoiser of a snapshot with one of its averages, frozen, in eval mode, float32 on the CPU.

    The snapshot is a folder that `save` wrote, or a result in a store, `STORE/results/snapshot/KEY`, whose digests are checked.
    Raises InputError if there is no such snapshot or average, IntegrityError if its bytes are damaged.
    """
    folder = Path(folder_or_uri)
    if (folder / DESCRIPTION).is_file():
        return _read(folder.joinpath, ema, str(folder), partial(_bring_code_beside, folder))
    address, result = split_address(str(folder_or_uri), "results")
    if not address or result.count("/") != 1:
        do_next = f"Give a folder with {DESCRIPTION}, or STORE/results/snapshot/KEY."
        raise InputError("There is no snapshot here.", where=str(folder_or_uri), do_next=do_next)
    store, ref = open_store(address), Ref.parse(result)
    manifest, where = load_manifest(store, ref), f"{store.uri}/{ref.folder}"
    if manifest is None or DESCRIPTION not in manifest.files:
        raise InputError("The store has no finished snapshot of this key.", where=where, do_next="Run its experiment.")
    with tempfile.TemporaryDirectory() as scratch:
        fetch = lambda name: store.fetch(manifest.path(name), Path(scratch), manifest.files[name])  # noqa: E731
        return _read(fetch, ema, where, lambda contents: bring_for_good(contents, store))


def _bring_code_beside(folder: Path, contents: Mapping[str, str]) -> None:
    """Make a network's own code importable: from the folder's CODE, as an export has it, else from the usual store."""
    if is_here(contents):
        return
    if not (folder / CODE).is_dir():
        bring_for_good(contents, find_store(default_store()))
    else:
        for package, content in contents.items():
            import_from(folder / CODE, package, content)


def _read(fetch: Callable[[str], Path], ema: str, where: str, bring_code: Callable[[Mapping[str, str]], None]) -> Denoiser:
    """The denoiser from the snapshot's files; `fetch` gives the local path of each, `bring_code` makes own code importable."""
    try:
        description: dict[str, Any] = json.loads(fetch(DESCRIPTION).read_text(encoding="utf-8"))
        emas = list(description["emas"])
        network = network_settings(description["network"])
        diffusion = DiffusionSettings.model_validate(description["diffusion"])
        pixel_scale = PixelScale(**description["affine"])
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"The snapshot's {DESCRIPTION} cannot be read: {error}", where=where) from error
    if ema not in emas:
        raise InputError(f"The snapshot has no average '{ema}'.", where=where, do_next=f"Choose among {', '.join(emas)}.")
    bring_code(description.get("code", {}))
    with torch.device("meta"):
        denoiser = Denoiser(build_network(network), diffusion, pixel_scale)
    try:
        tensors = load_file(fetch(weights_file(ema)))  # an own network may have buffers of whole numbers
        denoiser.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise IntegrityError(f"The snapshot's {weights_file(ema)} cannot be read: {error}", where=where) from error
    return denoiser.requires_grad_(False).eval()
