"""Whether a file is the weights that an extractor needs, as far as can be told without torch."""

from __future__ import annotations

import re
from pathlib import Path

from edm2core.addresses import is_url, shown
from edm2core.data.headers import check_torch, opcodes
from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.registry import WEIGHT_FILES


def weights_digest(kind: str, source: str | None) -> str:
    """The digest of an extractor's weights, a path or URL; of the published Inception's its beginning, wherever it comes from.

    Raises InputError where there are none, where the file is none of torch's (a page that says 404), where its name ends with another
    digest than its own, and where it names its weights as another network does.
    """
    where, file = f"{kind}_weights", WEIGHT_FILES[kind]
    do_next = file.get
    if source is None:
        raise InputError(f"The metrics need the weights of {file.words}, and the experiment names none.", where=where, do_next=do_next)
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", shown(source))  # torch hub's habit: the file's name ends with its SHA-256's beginning
    if is_url(source):
        if not named:
            raise InputError(
                f"The name of {source} does not end with its digest, so it could not be checked.", where=where, do_next=do_next
            )
        return f"sha256:{named[1]}"
    if not Path(source).exists():
        raise InputError(f"There is no file {source}.", where=where, do_next=do_next)
    try:
        check_torch(Path(source))
    except InputError as error:
        raise InputError(f"{source} is no file of weights. {error.what}", where=where, do_next=f"{error.do_next} {do_next}") from error
    digest = digest_of(Path(source))
    if named and not digest.startswith(f"sha256:{named[1]}"):
        raise InputError(f"{source} is not what its name says: its digest is {digest}.", where=where, do_next=do_next)
    if file.published and digest.startswith(file.published):
        return file.published
    if unlike := _unlike(kind, frozenset(text for _, text in opcodes(Path(source)) if isinstance(text, str))):
        raise InputError(f"{source} does not hold the weights of {file.words}: it has {unlike}.", where=where, do_next=do_next)
    return digest


def _unlike(kind: str, found: frozenset[str]) -> str:
    """In words, what tells these names from the network's own; empty where nothing does."""
    file = WEIGHT_FILES[kind]
    missing = [f"no '{name}'" for name in file.names if name not in found]
    return (missing or [f"a '{name}', which is {whose}" for name, whose in file.others.items() if name in found] or [""])[0]
