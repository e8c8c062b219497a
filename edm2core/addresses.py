"""Addresses as they may be shown and stored: without their secrets.

An address may carry a user and a password (`https://user:password@host/…`) or a token (`…?X-Amz-Signature=…`). A source
is identified by its content, not by its address. So only the process that is given an address keeps the whole of it, in memory.
"""

import re
from urllib.parse import urlsplit

_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]+:(?:\\?/){2,}|(?:https?|ftps?|s3|minio):\\?/)"  # pathlib turns two slashes into one
_ADDRESS = re.compile(rf"({_SCHEME})(.*)", re.DOTALL | re.IGNORECASE)
_IN_TEXT = re.compile(rf"""(["'`]?)({_SCHEME}[^\s<>]*)""", re.IGNORECASE)
_OF_A_LIBRARY = re.compile(r"(\burl: /[^\s?#]*)[?#]\S*")  # urllib3 names an address without its host
_AFTER = ".,;:!)]}…\\"  # punctuation that can follow an address in a sentence, in YAML or in JSON


def is_url(address: str) -> bool:
    """Whether the address is reached by network: it has a scheme, other than file."""
    return "://" in address and not address.lower().startswith("file:")


def is_web_url(address: str) -> bool:
    """Whether the address is an http(s) URL that can be opened: it has a host, no impossible port, and no spaces or control characters."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
    return valid and address.isprintable() and " " not in address


def shown(address: str) -> str:
    """The address without user, password, query and fragment; a path stays as it is.

    A password is left out even where it contains / ? # or @ unescaped.
    """
    match = _ADDRESS.fullmatch(address)
    if not match or address.lower().startswith("file:"):
        return address
    scheme, rest = match.groups()
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    port = host.partition(":")[2]
    ends_early = ":" in host and not port.isdigit() and not host.startswith("[")  # part of a password was taken for the host
    if "@" in host or ("@" in rest and ends_early):
        rest = rest[(host if "@" in host else rest).rindex("@") + 1 :]
    return scheme + re.split(r"[?#]", rest, maxsplit=1)[0]


def redacted(text: str) -> str:
    """The text with every address in it replaced by `shown`. An address in quotes ends at the closing quote."""
    return _OF_A_LIBRARY.sub(r"\1", _IN_TEXT.sub(_redact, text))


def _redact(match: re.Match[str]) -> str:
    quote, address = match.groups()
    rest = ""
    if quote and quote in address:
        address, _, rest = address.partition(quote)
        rest = quote + redacted(rest)
    bare = address.rstrip(_AFTER)
    return quote + shown(bare) + address[len(bare) :] + rest
