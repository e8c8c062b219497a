"""Whether a file is the weights that an extractor needs, as far as can be told without torch."""

from __future__ import annotations

import re
from pathlib import Path

from edm2core.addresses import is_url, shown
from edm2core.data.source import digest_of
from edm2core.data.torch_headers import check_torch, opcodes
from edm2core.errors import InputError
from edm2core.worker.sources import GET_WEIGHTS, PUBLISHED, WHAT

NAMES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "inception": (
        ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight", "fc.weight"),
        {"AuxLogits.fc.weight": "torchvision's, another training of it"},
    ),
    "dinov2": (
        ("cls_token", "pos_embed", "blocks.23.ls1.gamma"),
        {"blocks.24.ls1.gamma": "of a deeper one", "register_tokens": "of the variant with registers"},
    ),
}
"""Weights that an extractor's network has, and those of others that could be taken for it."""


def weights_digest(kind: str, source: str | None) -> str:
    """The digest of an extractor's weights, a path or URL; of the published Inception's its beginning, wherever it comes from.

    Raises InputError where there are none, where the file is none of torch's (a page that says 404), where its name ends with another
    digest than its own, and where it names its weights as another network does.
    """
    where, do_next = f"{kind}_weights", GET_WEIGHTS[kind]
    if source is None:
        raise InputError(f"The metrics need the weights of {WHAT[kind]}, and the experiment names none.", where=where, do_next=do_next)
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
    if digest.startswith(PUBLISHED):
        return PUBLISHED
    if unlike := _unlike(kind, frozenset(text for _, text in opcodes(Path(source)) if isinstance(text, str))):
        raise InputError(f"{source} does not hold the weights of {WHAT[kind]}: it has {unlike}.", where=where, do_next=do_next)
    return digest


def _unlike(kind: str, found: frozenset[str]) -> str:
    """In words, what tells these names from the network's own; empty where nothing does."""
    own, others = NAMES[kind]
    missing = [f"no '{name}'" for name in own if name not in found]
    return (missing or [f"a '{name}', which is {whose}" for name, whose in others.items() if name in found] or [""])[0]
