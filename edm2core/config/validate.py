"""Makes typed settings of a document. Errors give the file, the line and the allowed values."""

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from edm2core.addresses import redacted
from edm2core.config.fields import OWN, section_in
from edm2core.config.yaml_file import Document, SettingPath
from edm2core.errors import InputError

Model = TypeVar("Model", bound=BaseModel)

MOST_SHOWN = 80  # characters of a wrong value
BY_TYPE = {
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be names with values, such as {name: value}",
    "model_type": "must be names with values, such as {name: value}",
    "string_type": "must be text (in quotes, if it looks like a number)",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number in digits alone, such as 1000",
    "float_type": "must be a number, such as 0.5 or 1e-3",
}


def build(model: type[Model], document: Document) -> Model:
    """The document as `model`.

    Raises InputError that lists every fault: the line, the setting, what is allowed, and the nearest known name. If settings contradict
    each other, it gives the line of each.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        faults = [_fault(model, details) for details in _told_once(error.errors(include_url=False))]
        where = [_where(document, paths) for paths, _ in faults]
        if len(faults) == 1:
            raise InputError(faults[0][1], where=where[0]) from None
        lines = "\n    ".join(f"{line}: {words}" for line, (_, words) in zip(where, faults, strict=True))
        raise InputError(f"{len(faults)} settings are wrong:\n    {lines}", where=where[0]) from None


def other_version(error: ValidationError) -> InputError:
    """The error for a task whose settings this code does not take: another version's rules allowed them when the task was written."""
    names = ", ".join(".".join(map(str, _path_of(details))) for details in error.errors(include_url=False))
    return InputError(
        f"The task was written by another version of this program: {names}.",
        do_next="Bring both to one version: where pods work, `make images`, then compile or run again.",
    )


def _told_once(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """The errors without echoes: a list is too short because its wrong items are left out, or each type of a choice fails."""
    paths = [_path_of(details) for details in errors]

    def echoes(index: int) -> bool:
        path = paths[index]
        inside = any(other[: len(path)] == path and len(other) > len(path) for other in paths)
        return (errors[index]["type"] in ("too_short", "string_type") and inside) or path in paths[:index]

    return [details for index, details in enumerate(errors) if not echoes(index)]


def _path_of(details: ErrorDetails) -> SettingPath:
    of_types = ("function-after", "str", "int", "bool", "dict", "dict[str,any]", "tuple[float, ...]", "[key]", "[U-Net]", "[own network]")
    return tuple(part for part in details["loc"] if part not in of_types)


def _fault(model: type[BaseModel], details: ErrorDetails) -> tuple[list[SettingPath], str]:
    """The settings at fault, and words for a person."""
    path, kind, given = _path_of(details), details["type"], details.get("input")
    if kind == "extra_forbidden":
        section = _section(model, path[:-1])
        return [path], unknown("setting", _dotted(path), str(path[-1]), sorted(section.model_fields.keys() - {OWN}) if section else [])
    if kind == "missing":
        return [path[:-1] or path], f"The setting '{_dotted(path)}' is missing.{_meaning(model, path)}"
    if kind == "contradiction":
        paths = [(*path, *name.split(".")) for name in details["ctx"]["settings"]]
        return paths, f"{', '.join(map(_dotted, paths))}: {details['msg']}"
    if kind == "value_error":
        return [path], f"{_dotted(path)}: {details['ctx']['error']}"
    return [path], f"'{_dotted(path)}' {_allowed(details)}; it is {_as_written(given)}.{_meaning(model, path)}"


def _section(model: type[BaseModel], path: SettingPath) -> type[BaseModel] | None:
    """The section at a path; None where there is none."""
    section: type[BaseModel] | None = model
    for part in path:
        field = section.model_fields.get(str(part)) if section else None
        section = section_in(field.annotation) if field else None
    return section


def _meaning(model: type[BaseModel], path: SettingPath) -> str:
    """What the setting at a path means, in its own words, to stand behind a fault; empty where it has none."""
    *around, name = (part for part in path if isinstance(part, str))
    section = _section(model, tuple(around))
    field = section.model_fields.get(name) if section else None
    return f" Meaning: {field.description}" if field and field.description else ""


def _where(document: Document, paths: list[SettingPath]) -> str:
    """The lines of settings, without those that are at their defaults and so are not written anywhere."""
    written = [path for path in paths if path in document.origins] or paths[:1]
    return "; ".join(dict.fromkeys(str(document.origin(path)) for path in written))


def _dotted(path: SettingPath) -> str:
    return ".".join(map(str, path))


def _allowed(details: ErrorDetails) -> str:
    """What a setting must be, in words for someone who writes YAML."""
    if details["type"] in BY_TYPE:
        return BY_TYPE[details["type"]]
    message = details["msg"].replace("Input should be", "must be").replace("Tuple should have", "must have")
    return (message[0].lower() + message[1:]).replace(" after validation", "")


def _as_written(value: Any) -> str:
    """The value as in YAML. A long one is cut."""
    text = "empty" if value is None else str(value).lower() if isinstance(value, bool) else redacted(repr(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def unknown(kind: str, name: str, last: str, known: list[str]) -> str:
    """Words for an unknown name: the nearest known one, else all of them."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(last.lower(), by_lower, n=1, cutoff=0.5)
    return f"There is no {kind} '{name}'. " + (f"Did you mean '{by_lower[near[0]]}'?" if near else f"Known here: {', '.join(known)}.")
