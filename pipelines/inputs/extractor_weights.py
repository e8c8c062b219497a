"""Checks, without torch, whether a file holds the weights that an extractor needs."""

from __future__ import annotations

import re
from pathlib import Path

from edm2core.addresses import is_url, shown
from edm2core.data.headers import check_torch, opcodes
from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.registry import WEIGHT_FILES


def weights_digest(kind: str, source: str | None) -> str:
    """The digest of an extractor's weights at a path or URL. That of published weights is shortened as published, wherever they are.

    Raises InputError if there are none, if the file is not torch's (but a web page that says 404), if its name ends with another digest
    than its own, and if it names weights as another network does.
    """
    file = WEIGHT_FILES[kind]

    def wrong(what: str, first: str = "") -> InputError:
        return InputError(what, where=f"{kind}_weights", do_next=f"{first} {file.get}".strip())

    if source is None:
        raise wrong(f"The metrics need the weights of {file.words}, and the experiment names none.")
    named = re.search(r"-([0-9a-f]{8,64})\.pth$", shown(source))  # torch hub ends a file's name with the beginning of its SHA-256
    if is_url(source):
        if not named:
            raise wrong(f"The name of {source} does not end with its digest, so it could not be checked.")
        return f"sha256:{named[1]}"
    if not Path(source).exists():
        raise wrong(f"There is no file {source}.")
    try:
        check_torch(Path(source))
    except InputError as error:
        raise wrong(f"{source} is no file of weights. {error.what}", error.do_next) from error
    digest = digest_of(Path(source))
    if named and not digest.startswith(f"sha256:{named[1]}"):
        raise wrong(f"{source} is not what its name says: its digest is {digest}.")
    if file.published and digest.startswith(file.published):
        return file.published
    names = {text for _, text in opcodes(Path(source)) if isinstance(text, str)}
    unlike = [f"no '{name}'" for name in file.names if name not in names]
    unlike += [f"a '{name}', which is {whose}" for name, whose in file.others.items() if name in names]
    if unlike:
        raise wrong(f"{source} does not hold the weights of {file.words}: it has {unlike[0]}.")
    return digest
