"""What the user brings, by content: digests that keys are made of, before anything runs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from edm2core.config.experiment import Experiment
from edm2core.data.source import source_digest
from edm2core.errors import InputError

INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"


def resolve(experiment: Experiment) -> dict[str, str]:
    """The digests that `plan` asks for.

    Raises InputError for a path that does not exist, and for Inception metrics without Inception's weights.
    """
    sources = {recipe.data for recipe in experiment.recipes}  # recipes share data, which may be large
    by_source = {data: source_digest(data) for data in sources}
    digests = {f"data:{recipe.name}": by_source[recipe.data] for recipe in experiment.recipes}
    if "fid" in experiment.metrics:
        digests["inception"] = _inception(experiment.inception_weights)
    return digests


def _inception(source: str | None) -> str:
    advice = f"Download {INCEPTION_URL} and set `inception_weights:` to its path, or to that URL where there is a network."
    if source is None:
        raise InputError("FID needs the weights of Inception, and the experiment names none.", where="inception_weights", do_next=advice)
    if "://" in source:
        named = re.search(r"-([0-9a-f]{8,64})\.pth$", source)  # torch hub's habit: the file's name ends with its SHA-256's beginning
        if not named:
            raise InputError(
                f"The name of {source} does not end with its digest, so it could not be checked.", where="inception_weights", do_next=advice
            )
        return f"sha256:{named[1]}"
    path = Path(source)
    if not path.is_file():
        raise InputError(f"There is no file {path}.", where="inception_weights", do_next=advice)
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
