"""Settings given beside an experiment's file, as `--set training.lr=1e-3` gives them: read as YAML reads them, and laid over the file."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edm2core.config.yaml_file import Document, Origin, SettingPath, parse
from edm2core.errors import InputError
from edm2core.paths import located

OPTION = "--set"
OVERRIDES = "overrides"  # the section of an experiment that holds dotted settings of every recipe
FILES = ("data.source", "start.checkpoint", "reference.source", "inception_weights", "dinov2_weights")  # settings that name a file
NOTE = f"  # by {OPTION}"


@dataclass(frozen=True)
class Given:
    """A setting given beside the file: its dotted name, its value as YAML reads it, and the words that gave it."""

    name: str
    value: Any
    words: str


def parse_given(text: str) -> Given:
    """The setting in NAME=VALUE. A relative path in it is relative to the working directory.

    Raises InputError, which names the option, if there is no name or if the value is no YAML.
    """
    name, separator, value = text.partition("=")
    words = f"{OPTION} {text}"
    if not separator or not name.strip():
        raise InputError(f"{OPTION} takes a setting and its value.", where=words, do_next=f"Write {OPTION} training.lr=1e-3.")
    try:
        values = parse(f"value: {value}", words).values
    except InputError as error:
        raise InputError(error.what, where=words, do_next=error.do_next) from None
    if len(values) != 1:
        raise InputError(f"{OPTION} takes one setting.", where=words, do_next=f"Give {OPTION} once for each setting.")
    return Given(name.strip(), _whole_paths(name.strip(), values["value"], words), words)


def lay_given(document: Document, given: Sequence[Given], own: Collection[str], sections: Collection[str]) -> Document:
    """The experiment's document with these settings in place of its own, each with its words as its origin.

    `own` are the experiment's settings. A dotted setting, or one of a recipe's `sections`, is a setting of every recipe.
    Raises InputError if one is given twice.
    """
    values, origins = dict(document.values), dict(document.origins)
    if not isinstance(values.get(OVERRIDES, {}), dict):
        return document  # the check of the file names this error
    for number, each in enumerate(given):
        if any(each.name == earlier.name for earlier in given[:number]):
            raise InputError(f"'{each.name}' is given twice.", where=each.words, do_next="Keep one of them.")
        of_recipes = "." in each.name or (each.name in sections and each.name not in own)
        path: SettingPath = (OVERRIDES, each.name) if of_recipes else (each.name,)
        origins = {written: origin for written, origin in origins.items() if written[: len(path)] != path}
        origins[path] = Origin(each.words)
        if of_recipes:
            others = {name: value for name, value in values.get(OVERRIDES, {}).items() if name != each.name}
            values[OVERRIDES] = {**others, each.name: each.value}  # last, so that it counts
            origins.setdefault((OVERRIDES,), Origin(each.words))
        else:
            values[each.name] = each.value
    return Document(values, origins)


def text_with(text: str, before: Mapping[str, Any], after: Mapping[str, Any], note: str = NOTE) -> str:
    """The YAML text of the values `before`, changed so that it says `after`. Comments and lines of other settings stay.

    A changed line ends with the `note`.
    """
    changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
    if not changed:
        return text
    edited = text if text.endswith("\n") else f"{text}\n"
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    written = {key.value: (key.start_mark.index, value) for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
    for name in sorted(written.keys() & changed.keys(), key=lambda name: -written[name][0]):
        begin, value = written[name]
        end = _end(value)
        newline = "\n" * (edited[end - 1] == "\n")  # of a text block, whose end is the next line's begin
        edited = f"{edited[:begin]}{_line(name, changed[name])}{note}{newline}{edited[end:]}"
    edited += "".join(f"{_line(name, value)}{note}\n" for name, value in changed.items() if name not in written)
    try:
        if parse(edited, "").values == after:
            return edited
    except InputError:
        pass  # such as an alias whose anchor was in a setting that is replaced
    return text_of(after)


def _end(node: yaml.Node) -> int:
    """The index behind the last character of a value. PyYAML ends a block where the next one begins, behind the comments between them."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def text_of(values: Mapping[str, Any]) -> str:
    """The YAML text of these values, a line for each setting at the top. Raises TypeError for a value that YAML does not have."""
    return "".join(f"{_line(name, value)}\n" for name, value in values.items())


def _line(name: str, value: Any) -> str:
    return f"{name}: {json.dumps(value, ensure_ascii=False)}"  # JSON is YAML 1.2


def _whole_paths(name: str, value: Any, words: str) -> Any:
    """The value, its paths made absolute."""
    if name in FILES and isinstance(value, str):
        return located(value, Path(), words, urls=True)
    if name == "recipes" and isinstance(value, list):
        return [located(each, Path(), words, urls=False) if str(each).endswith((".yaml", ".yml")) else each for each in value]
    return value
