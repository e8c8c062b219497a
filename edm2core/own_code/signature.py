"""The settings of own code: its callable's keyword parameters, read from the source as a syntax tree, without importing it."""

import ast
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edm2core.config.validate import unknown
from edm2core.errors import InputError
from edm2core.own_code.source import OwnCode

TYPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "None": None}
WRITE = "Write it as `name: type = default`, of int, float, bool, str, Literal, tuple or such a type | None; the default is a plain value."
_TUPLE: Any = tuple
MOST_FOLLOWED = 8  # re-exports from one module of the package to another


class Parameter(NamedTuple):
    """A parameter of a callable that settings can give."""

    type: Any
    default: Any  # ... if the setting must be given


class Signature(NamedTuple):
    """A callable's parameters, in order: those that stand before `*` or have no keyword, and those that are settings."""

    where: str  # its file and line
    positional: tuple[str, ...]  # the leading parameters, which edm2 passes
    settings: dict[str, Parameter]


def read_signature(code: OwnCode, address: str, passed: int, where: str, by_name: Collection[str] = ()) -> Signature:
    """The signature of the callable at `address`. edm2 passes its first `passed` parameters by position, and those in `by_name` by name.

    Raises InputError, which names `where` the address stands or the line of the code, for a callable that is not there and for a
    parameter whose type or default cannot be read without running the code.
    """
    path, node, function = _callable(code, address, where)
    if function is None:  # a class without __init__ takes nothing
        return Signature(f"{path}, line {node.lineno}", (), {})
    arguments = function.args
    if arguments.vararg or arguments.kwarg:
        what = f"The settings of '{address.partition(':')[2]}' cannot be read from *args and **kwargs."
        raise InputError(what, where=f"{path}, line {function.lineno}", do_next=WRITE)
    listed = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(listed) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = list(zip(listed, defaults, strict=True))
    settings = [*pairs[passed:], *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    first = tuple(argument.arg for argument in listed[:passed])
    own = {each.arg: _parameter(path, each, default) for each, default in settings if each.arg not in by_name}
    return Signature(f"{path}, line {node.lineno}", first, own)


def first_parameters(code: OwnCode, address: str, where: str) -> list[str]:
    """The names of the callable's parameters, in order. Raises InputError as `read_signature`."""
    _, _, function = _callable(code, address, where)
    return [each.arg for each in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)] if function else []


def _callable(code: OwnCode, address: str, where: str) -> tuple[Path, ast.FunctionDef | ast.ClassDef, ast.FunctionDef | None]:
    """The file and the definition at an address, and the function whose parameters it takes, without `self`; None if it takes none."""
    module, _, name = address.partition(":")
    path, node = _definition(code, module, name, where)
    if isinstance(node, ast.FunctionDef):
        return path, node, node
    for inside in node.body:
        if isinstance(inside, ast.FunctionDef) and inside.name == "__init__":
            del (inside.args.posonlyargs or inside.args.args)[:1]
            return path, node, inside
    if any(ast.unparse(base).rpartition(".")[2] not in ("Module", "object", "Optimizer") for base in node.bases):
        what = f"The class '{node.name}' has no __init__ of its own, so its settings cannot be read."
        raise InputError(what, where=f"{path}, line {node.lineno}", do_next="Write its __init__ with the settings that it takes.")
    return path, node, None


def _definition(code: OwnCode, module: str, name: str, where: str, followed: int = 0) -> tuple[Path, ast.FunctionDef | ast.ClassDef]:
    """The file and the definition of a name in a module of the package, through imports within the package."""
    path = _file(code, module, where)
    tree = parsed(path)
    for node in reversed(tree.body):  # a later definition counts
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return path, node
        if isinstance(node, ast.ImportFrom) and followed < MOST_FOLLOWED:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    other = imported_module(code, module, path, node)
                    if other:
                        return _definition(code, other, alias.name, where, followed + 1)
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")]
    what = unknown("function or class", f"{module}:{name}", name, defined or ["none"])
    raise InputError(what, where=f"{where}; {path}", do_next="Name a function or class that this file defines with `def` or `class`.")


def module_file(code: OwnCode, module: str) -> Path | None:
    """The file of a module in the package; None if there is none."""
    inside = module.split(".")[1:]
    if code.path.is_file():
        candidates = [code.path] if not inside else []
    else:
        base = code.path.joinpath(*inside)
        candidates = [base / "__init__.py", *([base.with_suffix(".py")] if inside else [])]
    return next((path for path in candidates if path.is_file()), None)


def _file(code: OwnCode, module: str, where: str) -> Path:
    path = module_file(code, module)
    if path is None:
        do_next = "Correct the name, or write that file."
        if module.endswith(".py") and module_file(code, module.removesuffix(".py")):
            do_next = f"Leave out .py, as in an import: {module.removesuffix('.py')}."
        raise InputError(f"There is no module '{module}' in {code.path}.", where=where, do_next=do_next)
    return path


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file. Raises InputError, with the line of what is no Python."""
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise InputError(f"This is no Python: {error.msg}.", where=f"{path}, line {error.lineno}", do_next="Mend it there.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"It cannot be read: {error}.", where=str(path), do_next="Give a Python file in UTF-8.") from None


def imported_module(code: OwnCode, module: str, path: Path, node: ast.ImportFrom) -> str:
    """The package's module that an import names; empty if it is none of the package's."""
    if not node.level:
        return node.module if node.module and node.module.split(".")[0] == code.name else ""
    parents = module.split(".")[: len(module.split(".")) - node.level + (path.name == "__init__.py")]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _parameter(path: Path, argument: ast.arg, default: ast.expr | None) -> Parameter:
    def refused(why: str) -> InputError:
        return InputError(f"The parameter '{argument.arg}' {why}.", where=f"{path}, line {argument.lineno}", do_next=WRITE)

    value: Any = ...
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except (ValueError, TypeError, SyntaxError):
            raise refused(f"has a default that only running the code would tell: {ast.unparse(default)}") from None
    if argument.annotation is not None:
        kind = _type(argument.annotation)
        if kind is ...:
            raise refused(f"has a type that no setting has: {ast.unparse(argument.annotation)}")
    elif value is ... or value is None:
        raise refused("has no type, and no default that tells it")
    elif not isinstance(value, bool | int | float | str):
        raise refused(f"has no type, and its default {value!r} does not tell it")
    else:
        kind = type(value)
    return Parameter(kind, value)


def _type(node: ast.expr) -> Any:
    """The type that an annotation means; ... if it is none that settings have."""
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):  # a quoted annotation
            return _type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name) if name in TYPES:
            return TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            one, other = _type(left), _type(right)
            return ... if ... in (one, other) else one | other if one is not None and other is not None else (one or other) | None
        case ast.Subscript(value=value, slice=inside):
            return _generic(ast.unparse(value).rpartition(".")[2], inside)
    return ...


def _generic(name: str, inside: ast.expr) -> Any:
    parts = list(inside.elts) if isinstance(inside, ast.Tuple) else [inside]
    if name == "Literal":
        values = tuple(part.value for part in parts if isinstance(part, ast.Constant))
        return Literal[values] if len(values) == len(parts) else ...
    if name == "Optional" and len(parts) == 1:
        kind = _type(parts[0])
        return ... if kind is ... else kind | None
    if name in ("tuple", "list", "Sequence"):
        kinds = [part.value if isinstance(part, ast.Constant) and part.value is ... else _type(part) for part in parts]
        if name != "tuple" or kinds[1:] == [...]:
            return ... if kinds[0] is ... else _TUPLE[kinds[0], ...]
        return ... if ... in kinds else _TUPLE[tuple(kinds)]
    return ...
