"""Turns a document into typed settings, and what is wrong with it into words with file, line and allowed values."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edm2core.config.yaml_file import Document, Place
from edm2core.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def build(model: type[Model], document: Document) -> Model:
    """The document as `model`.

    Raises InputError that lists every fault: its line, the setting, what is allowed, and the nearest known name.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        faults = [_fault(model, details) for details in error.errors(include_url=False)]
        first = document.origin(_place(error.errors()[0]))
        lines = [f"{document.origin(place)}: {words}" for place, words in faults]
        if len(lines) == 1:
            raise InputError(faults[0][1], where=str(first)) from None
        raise InputError(f"{len(lines)} settings are wrong:\n    " + "\n    ".join(lines), where=str(first)) from None


def other_version(error: ValidationError) -> InputError:
    """Words for settings of a task that this code does not take: whoever wrote the task checked them by another version's rules."""
    names = ", ".join(".".join(map(str, _place(details))) for details in error.errors(include_url=False))
    return InputError(
        f"The task was written by another version of this program: {names}.",
        do_next="Bring both to one version: where pods work, `make images`, then compile or run again.",
    )


def _place(details: ErrorDetails) -> Place:
    return tuple(part for part in details["loc"] if part not in ("function-after", "str", "int", "bool", "dict"))


def _fault(model: type[BaseModel], details: ErrorDetails) -> tuple[Place, str]:
    place, kind, given = _place(details), details["type"], details.get("input")
    name = ".".join(map(str, place))
    if kind == "extra_forbidden":
        return place, unknown("setting", name, str(place[-1]), _fields(model, place[:-1]))
    if kind == "missing":
        return place[:-1] or place, f"The setting '{name}' is missing."
    if kind == "value_error":
        return place, f"{name}: {details['msg'].removeprefix('Value error, ')}" if name else details["msg"].removeprefix("Value error, ")
    allowed = details["msg"].replace("Input should be", "must be").replace("Tuple should have", "must have")
    return place, f"'{name}' {allowed[0].lower() + allowed[1:]}; it is {given!r}."


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
