"""Python source as what it does: trees that formatting, words, types and places do not change, and which module leads to which."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

SKIPPED = frozenset({"annotation", "returns", "ctx", "type_comment", "type_params", "kind"})  # types, and what Python's versions differ in
SAYING = frozenset({"emit", "print", "progress", "warn"})  # calls that only say something
REGISTRY, LOAD = "registry.py", "load"  # the module of tables that name code, and the function that imports what they name
ADDRESS = re.compile(r"(\w+)\.([\w.]+):(\w+)")  # package.module:callable
FAILING = ("Error", "Exception", "Warning", "Interrupted")  # how the names end of what is raised with words
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Use(NamedTuple):
    """A name that a module takes from another: the module's path in the package, or "" for one of another package, and the name there."""

    path: str
    name: str


class Package:
    """The modules of a package, by their paths in its folder, parsed when they are first looked at.

    `science` names the modules and packages at its top whose code counts; those of `not_followed` are not looked into.
    """

    def __init__(self, folder: Path, science: Collection[str], not_followed: Collection[str]) -> None:
        self.folder, self._science, self._not_followed = folder, science, not_followed
        self._modules: dict[str, Module] = {}

    def module(self, path: str) -> Module:
        if path not in self._modules:
            self._modules[path] = Module(self, path)
            self._modules[path].read_imports()  # only now, as packages may import each other
        return self._modules[path]

    def reached(self, start: str) -> list[str]:
        """The paths of the science that a module's imports lead to, itself among them, sorted."""
        found, waiting = {start}, [start]
        while waiting:
            for path in self.module(waiting.pop()).leads_to - found:
                if _top(path) not in self._not_followed:
                    found.add(path)
                    waiting.append(path)
        return sorted(path for path in found if path == start or _top(path) in self._science)

    def digest(self, start: str) -> str:
        """SHA-256 (hex) of what the science that a module reaches does, wherever its modules lie and however they are called."""
        reached = set(self.reached(start))
        parts = []
        for path in reached:
            module = self.module(path)
            uses = {(self.module(use.path).digest, use.name) for use in module.uses if use.path in reached}
            parts.append([module.digest, sorted(uses)])
        return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()

    def find(self, dotted: str) -> tuple[str, str] | None:
        """The path of a module by its dotted name inside the package, and what follows the module's name; None where there is none."""
        parts = dotted.split(".") if dotted else []
        for length in range(len(parts), -1, -1):
            stem = "/".join(parts[:length])
            for path in (f"{stem}.py", f"{stem}/__init__.py" if stem else "__init__.py"):
                if path != ".py" and (self.folder / path).is_file():
                    return path, ".".join(parts[length:])
        return None


class Module:
    """One module of a package."""

    def __init__(self, package: Package, path: str) -> None:
        self._package, self._path = package, path
        self._tree = ast.parse((package.folder / path).read_text(encoding="utf-8"))
        self.names: dict[str, Use] = {}  # what each name means that an import statement binds, wherever in the module it stands
        self._used: set[Use] = set()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of its tree."""
        return hashlib.sha256(self._written.encode()).hexdigest()

    @cached_property
    def leads_to(self) -> set[str]:
        """The paths of the package's modules that its import statements lead to."""
        return {use.path for use in (*self.names.values(), *self._loaded) if use.path} - {self._path}

    @property
    def uses(self) -> set[Use]:
        """The names of the package's other modules in its tree."""
        return self._used | self._loaded if self.digest else set()  # writing the tree finds them

    @cached_property
    def _loaded(self) -> set[Use]:
        """The code that the registry's tables name, of those tables from which this module loads."""
        tables = {use.name for use in self.names.values() if use.path == REGISTRY}
        if LOAD not in tables:
            return set()
        return {use for table in tables for use in self._package.module(REGISTRY).named_in(table)}

    def named_in(self, table: str) -> set[Use]:
        """The package's code that the addresses in a table name, which is assigned at this module's top."""
        found = set[Use]()
        for node in self._tree.body:
            if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == table for target in node.targets):
                strings = [each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
                addresses = [match for match in map(ADDRESS.fullmatch, strings) if match and match[1] == self._package.folder.name]
                found |= {self._meaning(".".join(match.groups())) for match in addresses}
        return found

    @cached_property
    def _unread(self) -> set[ast.stmt]:
        return _unread_texts(self._tree)

    @cached_property
    def _written(self) -> str:
        return json.dumps(self._body(self._tree.body, self.names), separators=(",", ":"))

    def read_imports(self) -> None:
        """Find out what imported names mean."""
        names = self.names
        for node in _statements(self._tree, inner=True):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    names[alias.asname or whole] = self._meaning(whole)
                    if not alias.asname and "." in alias.name:  # binds the first part, and leads to all of it
                        names[f" {alias.name}"] = self._meaning(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                base = self._base(node)
                for alias in node.names:
                    names[alias.asname or alias.name] = self._meaning(f"{base}.{alias.name}")

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parents = self._path.split("/")[: -node.level]
        return ".".join([self._package.folder.name, *parents, *([node.module] if node.module else [])])

    def _meaning(self, dotted: str) -> Use:
        """Where a dotted name is defined: a name that a package's __init__ hands on is its module's."""
        top, _, rest = dotted.partition(".")
        if top != self._package.folder.name or not (found := self._package.find(rest)):
            return Use("", dotted)
        path, name = found
        if name and path.endswith("__init__.py") and path != self._path:
            first, _, more = name.partition(".")
            handed_on = self._package.module(path).names.get(first)
            if handed_on:
                return Use(handed_on.path, ".".join(filter(None, (handed_on.name, more))))
        return Use(path, name)

    def _body(self, statements: list[ast.stmt], names: dict[str, Use], *, fields: bool = False) -> list[Any]:
        """Statements, without those that change no number. `fields`: of a class, where an annotation alone declares something."""
        found = []
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) or _says(statement) or statement in self._unread:
                continue
            if isinstance(statement, ast.AnnAssign) and (fields or statement.value is None):
                if fields:
                    found.append(["Field", self._write(statement.target, names), self._write(statement.value, names)])
                continue
            written = self._write(statement, names)
            if isinstance(statement, ast.If) and len(written) == 2 and not _does(statement.test):
                continue  # there were words alone in it
            found.append(written)
        return found

    def _write(self, node: Any, names: dict[str, Use]) -> Any:
        """A node as plain data: its kind, and what it holds."""
        if isinstance(node, list):
            return [self._write(each, names) for each in node]
        if not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Constant):  # 1, 1.0, True and "1" differ
            return ["Constant", type(node.value).__name__, node.value if isinstance(node.value, str) else repr(node.value)]
        if isinstance(node, ast.Name | ast.Attribute) and (meant := self._means(node, names)):
            return ["Name", meant]
        if isinstance(node, ast.Call) and _takes_words(node):
            return ["Call", self._write(node.func, names)]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            return ["Raise", self._write(node.exc.func, names)]
        if isinstance(node, ast.Assert):
            return ["Assert", self._write(node.test, names)]
        if isinstance(node, ast.AnnAssign):
            return ["Assign", ["targets", [self._write(node.target, names)]], ["value", self._write(node.value, names)]]
        if isinstance(node, SCOPES) and (bound := names.keys() & _bound(node)):
            names = {name: use for name, use in names.items() if name not in bound}
        written: list[Any] = [type(node).__name__]
        for name, value in ast.iter_fields(node):
            if name in SKIPPED or value is None or value == []:
                continue
            statements = isinstance(value, list) and isinstance(value[0], ast.stmt)
            body = self._body(value, names, fields=_has_fields(node)) if statements else self._write(value, names)
            if body != []:
                written.append([name, body])
        return written

    def _means(self, node: ast.Name | ast.Attribute, names: dict[str, Use]) -> str:
        """What an imported name, or a chain of attributes that begins with one, is called where it is defined; "" for any other."""
        chain: list[str] = []
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in names:
            return ""
        use = names[inner.id]
        if use.path:
            use = self._meaning(".".join([self._package.folder.name, *_dotted(use), *chain]))
            if not use.name:
                use = Use(use.path, "module")
            self._used.add(use)
            return use.name
        return ".".join([use.name, *chain])


def _top(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _dotted(use: Use) -> list[str]:
    module = use.path.removesuffix(".py").removesuffix("__init__").strip("/")
    return [part for part in (*module.split("/"), *use.name.split(".")) if part]


def _callee(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""


def _says(statement: ast.stmt) -> bool:
    """Whether a statement is words alone: a docstring, a text that stands for itself, an event, a warning."""
    if not isinstance(statement, ast.Expr):
        return False
    if isinstance(statement.value, ast.Constant):
        return True
    return isinstance(statement.value, ast.Call) and _callee(statement.value) in SAYING


def _takes_words(call: ast.Call) -> bool:
    """Whether what a call is given is for people alone."""
    name = _callee(call)
    return name in SAYING or name.endswith(FAILING)


def _does(test: ast.expr) -> bool:
    """Whether looking at a condition may do more than that."""
    return any(isinstance(node, ast.Call | ast.NamedExpr | ast.Await | ast.Yield) for node in ast.walk(test))


def _has_fields(node: ast.AST) -> bool:
    """Whether it is a class in which an annotation declares a field."""
    if not isinstance(node, ast.ClassDef):
        return False
    words = {_last(each.func if isinstance(each, ast.Call) else each) for each in (*node.bases, *node.decorator_list)}
    return bool(words & {"dataclass", "NamedTuple", "TypedDict", "BaseModel", "Settings"})


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _bound(node: ast.AST) -> set[str]:
    """The names that a function or comprehension binds itself, other than by importing."""
    found, waiting = set[str](), list(ast.iter_child_nodes(node))
    while waiting:
        each = waiting.pop()
        if isinstance(each, ast.arg):
            found.add(each.arg)
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            found.add(each.id)
        if not isinstance(each, (*SCOPES, ast.ClassDef)):
            waiting += ast.iter_child_nodes(each)
    return found


def _unread_texts(tree: ast.Module) -> set[ast.stmt]:
    """Assignments of texts to local or private names that nothing but words reads."""
    unread = set[ast.stmt]()
    scopes = [tree, *(node for node in _statements(tree, inner=True) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]
    for scope in scopes:
        texts = [(each, names) for each in _statements(scope) if (names := _text_names(each, private=scope is tree))]
        if not texts:
            continue
        while more := [each for each, names in texts if each not in unread and not names & _read(scope, unread)]:
            unread.update(more)
    return unread


def _statements(scope: ast.AST, inner: bool = False) -> Iterator[ast.stmt]:
    """The statements of a scope, also those in blocks; `inner`: and those of functions and classes in it."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(scope, name, ()):
            if isinstance(node, ast.stmt):
                yield node
            if inner or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _statements(node, inner)


def _text_names(statement: ast.stmt, private: bool) -> set[str]:
    """The names to which a statement does nothing but assign texts, if it is such a one."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target, value = statement.targets[0], statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        target, value = statement.target, statement.value
    else:
        return set()
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        pairs = list(zip(target.elts, value.elts, strict=True))
    names = {target.id for target, value in pairs if isinstance(target, ast.Name) and _is_text(value)}
    return names if len(names) == len(pairs) and (not private or all(name.startswith("_") for name in names)) else set()


def _is_text(value: ast.expr) -> bool:
    if isinstance(value, ast.BinOp):
        return _is_text(value.left) or _is_text(value.right)
    if isinstance(value, ast.IfExp):
        return _is_text(value.body) and _is_text(value.orelse)
    if isinstance(value, ast.Call):  # ", ".join(…)
        return isinstance(value.func, ast.Attribute) and isinstance(value.func.value, ast.Constant) and _is_text(value.func.value)
    return isinstance(value, ast.JoinedStr) or (isinstance(value, ast.Constant) and isinstance(value.value, str))


def _read(scope: ast.AST, unread: Collection[ast.stmt]) -> set[str]:
    """The names that are read in a scope for anything but words."""
    found, waiting = set[str](), [scope]
    while waiting:
        node = waiting.pop()
        if node in unread or (isinstance(node, ast.stmt) and _says(node)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found.add(node.id)
        if isinstance(node, ast.Call) and _takes_words(node):
            waiting.append(node.func)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            waiting.append(node.exc.func)
        elif isinstance(node, ast.Assert):
            waiting.append(node.test)
        else:
            waiting += [child for name, child in _children(node) if name not in SKIPPED]
    return found


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    for name, value in ast.iter_fields(node):
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield name, each
