"""Turns a document into typed settings, and what is wrong with it into words with file, line and allowed values."""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edm2core.config.yaml_file import Document, Place
from edm2core.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def build(model: type[Model], document: Document) -> Model:
    """The document as `model`.

    Raises InputError that lists every fault: its line, the setting, what is allowed, and the nearest known name; of settings that
    contradict each other, the line of each.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        faults = [_fault(model, details) for details in error.errors(include_url=False)]
        where = [_where(document, places) for places, _ in faults]
        if len(faults) == 1:
            raise InputError(faults[0][1], where=where[0]) from None
        lines = "\n    ".join(f"{line}: {words}" for line, (_, words) in zip(where, faults, strict=True))
        raise InputError(f"{len(faults)} settings are wrong:\n    {lines}", where=where[0]) from None


def other_version(error: ValidationError) -> InputError:
    """Words for settings of a task that this code does not take: whoever wrote the task checked them by another version's rules."""
    names = ", ".join(".".join(map(str, _place(details))) for details in error.errors(include_url=False))
    return InputError(
        f"The task was written by another version of this program: {names}.",
        do_next="Bring both to one version: where pods work, `make images`, then compile or run again.",
    )


def _place(details: ErrorDetails) -> Place:
    return tuple(part for part in details["loc"] if part not in ("function-after", "str", "int", "bool", "dict"))


def _fault(model: type[BaseModel], details: ErrorDetails) -> tuple[list[Place], str]:
    """The places of the settings at fault, and words for a person."""
    place, kind, given = _place(details), details["type"], details.get("input")
    if kind == "extra_forbidden":
        return [place], unknown("setting", _dotted(place), str(place[-1]), _fields(model, place[:-1]))
    if kind == "missing":
        return [place[:-1] or place], f"The setting '{_dotted(place)}' is missing."
    if kind == "value_error":
        places, words = _named(place, details["msg"].removeprefix("Value error, "), _fields(model, place))
        return places, f"{', '.join(map(_dotted, places))}: {words}"
    allowed = details["msg"].replace("Input should be", "must be").replace("Tuple should have", "must have")
    return [place], f"'{_dotted(place)}' {allowed[0].lower() + allowed[1:]}; it is {given!r}."


def _where(document: Document, places: list[Place]) -> str:
    """The lines of settings, without those that are nowhere written since they stand at their defaults."""
    written = [place for place in places if place in document.origins] or places[:1]
    return "; ".join(dict.fromkeys(str(document.origin(place)) for place in written))


def _named(place: Place, message: str, fields: list[str]) -> tuple[list[Place], str]:
    """The places of settings that a message about the section at `place` begins with, "exact, precision: …", and the rest of it."""
    begins = re.match(r"([a-z0-9_.]+(?:, [a-z0-9_.]+)*): ", message)
    names = begins[1].split(", ") if begins else []
    if begins and all(name.partition(".")[0] in fields for name in names):
        return [(*place, *name.split(".")) for name in names], message[begins.end() :]
    return [place], message


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def unknown(kind: str, name: str, last: str, known: list[str]) -> str:
    """Words for an unknown name: the nearest known one, else all of them."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(last.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"Did you mean '{by_lower[near[0]]}'?" if near else ""
    return f"There is no {kind} '{name}'. {hint} Known here: {', '.join(known)}.".replace("  ", " ")


def _fields(model: type[BaseModel], place: Place) -> list[str]:
    current: Any = model
    for part in place:
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return []
        current = field.annotation
    return sorted(getattr(current, "model_fields", {}))
