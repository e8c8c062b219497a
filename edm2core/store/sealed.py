"""Sealed records: small JSON objects that carry a digest of their own text, so that any change to them shows."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from edm2core.errors import IntegrityError, MissingError, StoreError
from edm2core.store.base import Store

T = TypeVar("T")
DIGEST = "sha256"
LENGTH = 256  # the last bytes of a record, among which its digest stands
END = re.compile(rb',\s*"sha256": "([0-9a-f]{64})"\s*\}\s*\Z')


def sealed(values: Mapping[str, Any], indent: int | None = 1) -> bytes:
    """The values, at least one, as JSON whose last value is the SHA-256 of all text before it. `indent` None gives a single line."""
    body = json.dumps(values, indent=indent, default=str).removesuffix("}").rstrip()
    before, after = (", ", "") if indent is None else (",\n" + " " * indent, "\n")
    return f'{body}{before}"{DIGEST}": "{hashlib.sha256(body.encode()).hexdigest()}"{after}}}'.encode()


def unseal(data: bytes, earlier: Collection[str] | None = None) -> dict[str, Any]:
    """The values of a sealed record. Raises ValueError with the reason if the data are no record, or were changed since they were written.

    Earlier versions wrote no digest. A record without one is accepted if all its fields are in `earlier`; None accepts any fields.
    """
    try:
        values = json.loads(data)
    except RecursionError:
        raise ValueError("it is no JSON of ours") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a record")
    if end := END.search(data, max(0, len(data) - LENGTH)):
        if hashlib.sha256(data[: end.start()]).hexdigest() != end[1].decode():
            raise ValueError("it has been changed since it was written")
        del values[DIGEST]
    elif DIGEST in values or (earlier is not None and not values.keys() <= set(earlier)):
        raise ValueError("its digest is missing or damaged")
    return values


def read_sealed(store: Store, path: str, parse: Callable[[dict[str, Any]], T], earlier: Collection[str] | None = None) -> T:
    """What `parse` makes of the values of a sealed record in a store.

    Raises MissingError if it is not there, IntegrityError if it is damaged, may not be read or cannot be parsed, and StoreError only if the
    store itself is in trouble. So a caller that skips damaged records still sees all others.
    """
    try:
        return parse(unseal(store.read(path), earlier))
    except MissingError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(f"The record is damaged, or of another version of edm2: {error}.", where=f"{store.uri}/{path}") from None
    except StoreError as error:
        if not error.permanent:
            raise
        raise IntegrityError(f"The record cannot be read: {error.what}", where=error.where, do_next=error.do_next) from error


def unseal_lines(data: bytes) -> list[tuple[bytes, dict[str, Any] | None]]:
    """The lines of a file, each with its values as a sealed record, or None if the line is damaged."""

    def values(line: bytes) -> dict[str, Any] | None:
        with suppress(ValueError):
            return unseal(line)
        return None

    return [(line, values(line)) for line in data.splitlines()]
