"""Makes a feature extractor: trains the digits classifier, scales filters to the data, or fetches and checks others' weights."""

from pathlib import Path

from torch import Tensor

from edm2core.data import digest_of, load_prepared
from edm2core.errors import InputError
from edm2core.events import emit
from edm2core.metrics.extraction import BUILD, INFOS, ExtractorInfo
from edm2core.registry import EXTRACTORS, WEIGHT_FILES, WEIGHTS, load
from edm2core.snapshots.torch_file import load_torch
from edm2core.worker.fetching import brought
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: extractor.safetensors and extractor.json."""
    name = work.settings["extractor"]
    if name not in EXTRACTORS:
        raise InputError(f"There is no feature extractor {name!r}.", where="extractor", do_next=f"Use one of {', '.join(EXTRACTORS)}.")
    info, facts = INFOS[name], EXTRACTORS[name]
    if facts.fit:
        data = work.inputs["data"]
        work.progress(0, 1)
        module, fitted = load(facts.fit)(load_prepared(data.all()), data.manifest.title)
        info.write(work.out, module.state_dict())
        work.metadata |= {"extractor": name, "label": facts.words, "dimensions": facts.dimensions, **fitted}
    else:
        _brought(work, info)


def _brought(work: Workspace, info: ExtractorInfo) -> None:
    """Store an extractor of the user's weights, if they are this extractor's."""
    file, path = WEIGHT_FILES[WEIGHTS[info.name]], brought(work)
    digest = digest_of(path)
    published = digest.startswith(file.published)
    if not published:
        emit(
            "warning",
            message=f"{path} is not the published file ({file.published}…): distances are not comparable with FIDs in the literature.",
        )
    weights = read_weights(path, file.get)
    try:
        BUILD[info.name](weights)
    except (RuntimeError, KeyError) as error:
        raise InputError(f"These are not the weights of {info.library_name}: {error}", where=str(path), do_next=file.get) from error
    info.write(work.out, weights)
    work.metadata |= {"extractor": info.name, "label": info.library_name, "dimensions": info.dimensions, "source_digest": digest}
    if file.published:
        work.metadata["published_weights"] = published


def read_weights(path: Path, do_next: str) -> dict[str, Tensor]:
    """The tensors in a .pth file by name. Raises InputError as `load_torch` does, and if it holds no dictionary of tensors."""
    try:
        weights = load_torch(path)
    except InputError as error:
        raise InputError(error.what, where=error.where, do_next=f"{error.do_next} {do_next}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError("This file does not hold weights by name.", where=str(path), do_next=do_next)
    return weights


if __name__ == "__main__":
    main("extractor", run)
