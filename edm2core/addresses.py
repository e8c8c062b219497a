"""Addresses as they may be shown and stored: without what may be secret in them.

An address may carry a user and a password (`https://user:password@host/…`) or a token (`…?X-Amz-Signature=…`). It identifies nothing, since
what identifies a source is its content. So the whole address stays in the memory of the process that was given it.
"""

from __future__ import annotations

import re

_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]+:(?:\\?/){2,}|(?:https?|ftps?|s3|minio):\\?/)"  # a path's type makes one slash of two
_ADDRESS = re.compile(rf"({_SCHEME})(.*)", re.DOTALL | re.IGNORECASE)
_IN_TEXT = re.compile(rf"""(["'`]?)({_SCHEME}[^\s<>]*)""", re.IGNORECASE)
_OF_A_LIBRARY = re.compile(r"(\burl: /[^\s?#]*)[?#]\S*")  # urllib3 names an address without its host
_AFTER = ".,;:!)]}…\\"  # what follows an address in a sentence, in YAML or in JSON, and is none of it


def is_url(address: str) -> bool:
    """Whether this is an address of a network: it has a scheme, which is not file."""
    return "://" in address and not address.lower().startswith("file:")


def shown(address: str) -> str:
    """The address without user, password, query and fragment; a path stays as it is.

    A password with characters that should not stand in an address as they are (/ ? # @) is left out too.
    """
    found = _ADDRESS.fullmatch(address)
    if not found or address.lower().startswith("file:"):
        return address
    scheme, rest = found.groups()
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    port = host.partition(":")[2]
    ends_early = ":" in host and not port.isdigit() and not host.startswith("[")  # the password has what ends a host's name
    if "@" in host or ("@" in rest and ends_early):
        rest = rest[(host if "@" in host else rest).rindex("@") + 1 :]
    return scheme + re.split(r"[?#]", rest, maxsplit=1)[0]


def redacted(text: str) -> str:
    """The text with every address in it as `shown` shows it; one in quotes ends at the closing one."""
    return _OF_A_LIBRARY.sub(r"\1", _IN_TEXT.sub(_redact, text))


def _redact(found: re.Match[str]) -> str:
    quote, address = found.groups()
    rest = ""
    if quote and quote in address:
        address, _, rest = address.partition(quote)
        rest = quote + redacted(rest)
    bare = address.rstrip(_AFTER)
    return quote + shown(bare) + address[len(bare) :] + rest
