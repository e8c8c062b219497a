"""YAML read strictly, remembering the file and line of every value, so that errors can name them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from edm2core.addresses import redacted
from edm2core.errors import InputError

SettingPath = tuple[str | int, ...]  # a value's names and indices from the top of the file: ("training", "betas", 0)

NOT_AS_IN_1_2 = ("bool", "int", "float", "timestamp", "value")
MOST_VALUES = 100_000  # in a file; aliases count as often as they repeat a value


class _Loader(yaml.SafeLoader):
    """Reads plain values by YAML 1.2's core schema: 010 is ten, 0o10 eight, 5e-3 a number, 1:30, yes and 2024-01-01 are text.

    YAML 1.1, which PyYAML reads, has eight, text, text, ninety, true and a date.
    """

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in NOT_AS_IN_1_2]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 10 if text.lstrip("+-").isdecimal() else 0)  # 0 reads 0o10 and 0x1F


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).lower().replace(".inf", "inf").replace(".nan", "nan"))


for _tag, _pattern, _first in (  # the core schema's own (YAML 1.2.2, section 10.3.2)
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


@dataclass(frozen=True)
class Origin:
    """The file and line (from 1) that a value was written in. A value that was given in another way has no line: `file` then says how."""

    file: str
    line: int = 0

    @property
    def folder(self) -> Path:
        """The folder that a relative path in this place is relative to."""
        return Path(self.file).parent if self.line else Path()

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}" if self.line else self.file


@dataclass(frozen=True)
class Document:
    """A YAML mapping, and the file and line of each of its values."""

    values: dict[str, Any]
    origins: dict[SettingPath, Origin]

    def origin(self, path: SettingPath) -> Origin:
        """The line of the value at `path`, or of the nearest value around it."""
        return next(self.origins[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.origins)


def read_text(path: Path) -> str:
    """The file's text.

    Raises InputError if it is missing, not readable, not UTF-8 or binary.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        if "\0" not in text:
            return text
        what, do_next = f"{path} is not a text file.", "Give a YAML file in UTF-8."
    except FileNotFoundError:
        what, do_next = f"There is no file {path}.", "Check the path; `edm2 recipes` lists what is built in."
    except IsADirectoryError:
        what, do_next = f"{path} is a folder, not a YAML file.", "Name the .yaml file itself."
    except UnicodeDecodeError:
        what, do_next = f"{path} is not a text file.", "Give a YAML file in UTF-8."
    except OSError as error:
        what, do_next = f"{path} cannot be read: {error.strerror}.", ""
    raise InputError(what, where=str(path), do_next=do_next)


def load(path: Path) -> Document:
    """The mapping in a YAML file.

    Raises InputError naming the line for bad syntax, a tag, a doubled name, or anything but a mapping at the top.
    """
    return parse(read_text(path), str(path))


def parse(text: str, file: str) -> Document:
    """Read a document from text, as `load` does from a file. Errors give `file` as the name of the text."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        origins = list(islice(_origins(node, (), file), MOST_VALUES)) if node is not None else []
        if len(origins) == MOST_VALUES:
            too_many = f"The file has more than {MOST_VALUES:,} values."
            raise InputError(too_many, where=file, do_next="Write them out instead of repeating aliases.")
        values = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what, do_next = f"The YAML is malformed: {error.problem or error}.", "Mend the syntax there."
        if isinstance(error, yaml.constructor.ConstructorError):
            what, do_next = f"A YAML tag is not allowed: {error.problem}.", "Write plain values."
        raise InputError(what, where=str(Origin(file, mark.line + 1 if mark else 1)), do_next=do_next) from None
    except RecursionError:
        too_deep = "The YAML is nested too deeply, or an alias stands inside itself."
        raise InputError(too_deep, where=file, do_next="Write plain values.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"The YAML is malformed: {error}.", where=file, do_next="Give a YAML file in UTF-8.") from None
    if node is None or values is None:
        raise InputError("The file is empty.", where=file, do_next="Start from experiments/demo.yaml.")
    if not isinstance(values, dict):
        raise InputError("The file must hold names with values (`name: …`) at the top.", where=str(Origin(file, node.start_mark.line + 1)))
    return Document(values, dict(origins))


def without_secrets(text: str) -> str:
    """The text of a YAML file with addresses in the form that may be stored. All other values stay as they are."""
    scalars = {node.start_mark.index: node for node in _scalars(yaml.compose(text, Loader=_Loader)) if redacted(node.value) != node.value}
    for start, node in sorted(scalars.items(), reverse=True):  # however a value is quoted, folded or escaped
        end = "\n" if node.style in ("|", ">") else ""
        before = re.match(r"([&!]\S*\s+)*", text[start:])  # an anchor, which others refer to
        value = json.dumps(redacted(node.value), ensure_ascii=False)
        text = text[:start] + (before[0] if before else "") + value + end + text[node.end_mark.index :]
    return redacted(text)  # comments too


def _scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            yield from _scalars(part)


def _origins(node: yaml.Node, path: SettingPath, file: str) -> Iterator[tuple[SettingPath, Origin]]:
    yield path, Origin(file, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                raise InputError("Names must be plain words.", where=str(Origin(file, line)))
            if key.value in seen:
                doubled = f"'{key.value}' stands twice (first in line {seen[key.value]})."
                raise InputError(doubled, where=str(Origin(file, line)), do_next="Keep one of them.")
            seen[key.value] = line
            yield from _origins(value, (*path, key.value), file)
            yield (*path, key.value), Origin(file, line)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _origins(value, (*path, index), file)
