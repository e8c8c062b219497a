"""Digests of Python source by what it does. Formatting, words, types and the places of modules do not change them."""

import ast
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

SKIPPED = frozenset({"annotation", "returns", "ctx", "type_comment", "type_params", "kind"})  # types, and fields that not every Python has
MESSAGE_FUNCTIONS = frozenset({"emit", "print", "progress", "warn"})  # functions that only say something
REGISTRY, LOAD = "registry.py", "load"  # the module of tables that name code, and the function that imports that code
ADDRESS = re.compile(r"(\w+)\.([\w.]+):(\w+)")  # package.module:callable
EXCEPTION_ENDINGS = ("Error", "Exception", "Warning", "Interrupted")  # the ends of the names of exceptions, which take words
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Use(NamedTuple):
    """A name that a module imports: the path of its module in the package, or "" for another package's; and its name there."""

    path: str
    name: str


class Package:
    """The modules of a package, by their paths in its folder. They are parsed when they are first needed.

    `science` names the modules and packages at its top whose code counts. The imports of those in `not_followed` are not followed.
    """

    def __init__(self, folder: Path, science: Collection[str], not_followed: Collection[str]) -> None:
        self.folder, self._science, self._not_followed = folder, science, not_followed
        self._modules: dict[str, Module] = {}

    def module(self, path: str) -> "Module":
        if path not in self._modules:
            self._modules[path] = Module(self, path)
            self._modules[path].read_imports()  # only now, since modules may import each other
        return self._modules[path]

    def reached(self, start: str) -> list[str]:
        """The paths of the science that a module's imports lead to, sorted, with the module's own."""
        reached, waiting = {start}, [start]
        while waiting:
            for path in self.module(waiting.pop()).leads_to - reached:
                if _top(path) not in self._not_followed:
                    reached.add(path)
                    waiting.append(path)
        return sorted(path for path in reached if path == start or _top(path) in self._science)

    def digest(self, start: str) -> str:
        """SHA-256 (hex) of all science that a module reaches. The places and names of its modules do not change it."""
        reached = set(self.reached(start))
        parts = []
        for path in reached:
            module = self.module(path)
            uses = {(self.module(use.path).digest, use.name) for use in module.uses if use.path in reached}
            parts.append([module.digest, sorted(uses)])
        return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()

    def find(self, dotted: str) -> tuple[str, str] | None:
        """The path of the module in a dotted name inside the package, and the rest of the name; None if there is no such module."""
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
        self._unread = _unread_texts(self._tree)
        self.names: dict[str, Use] = {}  # the meaning of each name that an import statement binds, anywhere in the module
        self._used: set[Use] = set()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of its tree."""
        written = json.dumps(self._body(self._tree.body, self.names), separators=(",", ":"))
        return hashlib.sha256(written.encode()).hexdigest()

    @cached_property
    def leads_to(self) -> set[str]:
        """The paths of the package's modules that its import statements lead to."""
        return {use.path for use in (*self.names.values(), *self._loaded) if use.path} - {self._path}

    @property
    def uses(self) -> set[Use]:
        """The names of the package's other modules in its tree."""
        return self._used | self._loaded if self.digest else set()  # computing the digest collects them

    @cached_property
    def _loaded(self) -> set[Use]:
        """The code in the tables of the registry from which this module loads."""
        tables = {use.name for use in self.names.values() if use.path == REGISTRY}
        if LOAD not in tables:
            return set()
        return {use for table in tables for use in self._package.module(REGISTRY).named_in(table)}

    def named_in(self, table: str) -> set[Use]:
        """The package's code whose addresses stand in a table at this module's top."""
        code = set[Use]()
        for node in self._tree.body:
            if isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == table for target in node.targets):
                strings = [item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant) and isinstance(item.value, str)]
                addresses = [match for match in map(ADDRESS.fullmatch, strings) if match and match[1] == self._package.folder.name]
                code |= {self._meaning(".".join(match.groups())) for match in addresses}
        return code

    def read_imports(self) -> None:
        """Fill `names`."""
        names = self.names
        for node in _statements(self._tree, inner=True):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    names[alias.asname or whole] = self._meaning(whole)
                    if not alias.asname and "." in alias.name:  # `import a.b` binds `a` alone, and imports `a.b` too
                        names[f" {alias.name}"] = self._meaning(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
                parents = [self._package.folder.name, *self._path.split("/")[: -node.level]] if node.level else []
                base = ".".join([*parents, *([node.module] if node.module else [])])
                for alias in node.names:
                    names[alias.asname or alias.name] = self._meaning(f"{base}.{alias.name}")

    def _meaning(self, dotted: str) -> Use:
        """Where a dotted name is defined. A name that the __init__ of a package only imports belongs to the module that defines it."""
        top, _, rest = dotted.partition(".")
        if top != self._package.folder.name or not (definition := self._package.find(rest)):
            return Use("", dotted)
        path, name = definition
        if name and path.endswith("__init__.py") and path != self._path:
            first, _, more = name.partition(".")
            imported = self._package.module(path).names.get(first)
            if imported:
                return Use(imported.path, ".".join(filter(None, (imported.name, more))))
        return Use(path, name)

    def _body(self, statements: list[ast.stmt], names: dict[str, Use], *, fields: bool = False) -> list[Any]:
        """Statements as plain data, without those that change no number. With `fields` a bare annotation counts: it declares a field."""
        body: list[Any] = []
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) or _is_message(statement) or statement in self._unread:
                continue
            if isinstance(statement, ast.AnnAssign) and (fields or statement.value is None):
                if fields:
                    body.append(["Field", self._write(statement.target, names), self._write(statement.value, names)])
                continue
            written = self._write(statement, names)
            if isinstance(statement, ast.If) and len(written) == 2 and not _has_effects(statement.test):
                continue  # its body had words alone
            body.append(written)
        return body

    def _write(self, node: Any, names: dict[str, Use]) -> Any:
        """A node as plain data: its kind, and its fields."""
        if isinstance(node, list):
            return [self._write(item, names) for item in node]
        if not isinstance(node, ast.AST):
            return node
        if isinstance(node, ast.Constant):  # 1, 1.0, True and "1" differ
            return ["Constant", type(node.value).__name__, node.value if isinstance(node.value, str) else repr(node.value)]
        if isinstance(node, ast.Name | ast.Attribute) and (meaning := self._means(node, names)):
            return ["Name", meaning]
        if isinstance(node, ast.Call) and _takes_message(node):
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
        """The name of an imported name where it is defined, or of a chain of attributes that begins with one; "" for any other name."""
        inner: ast.expr = node
        while isinstance(inner, ast.Attribute):
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in names:
            return ""
        use, attributes = names[inner.id], ast.unparse(node).split(".")[1:]
        if use.path:
            use = self._meaning(".".join([self._package.folder.name, *_dotted(use), *attributes]))
            if not use.name:
                use = Use(use.path, "module")
            self._used.add(use)
            return use.name
        return ".".join([use.name, *attributes])


def _top(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _dotted(use: Use) -> list[str]:
    module = use.path.removesuffix(".py").removesuffix("__init__").strip("/")
    return [part for part in (*module.split("/"), *use.name.split(".")) if part]


def _last_name(node: ast.expr) -> str:
    """The last part of a dotted name; "" for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_message(statement: ast.stmt) -> bool:
    """Whether a statement only says something: a docstring or another text, an event, a warning."""
    if not isinstance(statement, ast.Expr):
        return False
    if isinstance(statement.value, ast.Constant):
        return True
    return isinstance(statement.value, ast.Call) and _last_name(statement.value.func) in MESSAGE_FUNCTIONS


def _takes_message(call: ast.Call) -> bool:
    """Whether the arguments of a call are words for people."""
    name = _last_name(call.func)
    return name in MESSAGE_FUNCTIONS or name.endswith(EXCEPTION_ENDINGS)


def _has_effects(test: ast.expr) -> bool:
    """Whether evaluating a condition may have effects."""
    return any(isinstance(node, ast.Call | ast.NamedExpr | ast.Await | ast.Yield) for node in ast.walk(test))


def _has_fields(node: ast.AST) -> bool:
    """Whether a node is a class in which an annotation declares a field."""
    if not isinstance(node, ast.ClassDef):
        return False
    names = {_last_name(base.func if isinstance(base, ast.Call) else base) for base in (*node.bases, *node.decorator_list)}
    return bool(names & {"dataclass", "NamedTuple", "TypedDict", "BaseModel", "Settings"})


def _bound(node: ast.AST) -> set[str]:
    """The names that a function or comprehension binds itself, other than by imports."""
    bound, waiting = set[str](), list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        if isinstance(child, ast.arg):
            bound.add(child.arg)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            bound.add(child.id)
        if not isinstance(child, (*SCOPES, ast.ClassDef)):
            waiting += ast.iter_child_nodes(child)
    return bound


def _unread_texts(tree: ast.Module) -> set[ast.stmt]:
    """The assignments of texts to local or private names that are used in messages alone."""
    unread = set[ast.stmt]()
    scopes = [tree, *(node for node in _statements(tree, inner=True) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]
    for scope in scopes:
        texts = [(text, names) for text in _statements(scope) if (names := _text_names(text, private=scope is tree))]
        while more := [text for text, names in texts if text not in unread and not names & _read(scope, unread)]:
            unread.update(more)
    return unread


def _statements(scope: ast.AST, inner: bool = False) -> Iterator[ast.stmt]:
    """The statements of a scope and of its blocks; with `inner` also those of the functions and classes in it."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(scope, name, ()):
            if isinstance(node, ast.stmt):
                yield node
            if inner or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _statements(node, inner)


def _text_names(statement: ast.stmt, private: bool) -> set[str]:
    """The names that a statement assigns texts to, if it does nothing else; with `private` if all of them are private."""
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
    """The names that a scope reads, other than for messages. Statements in `unread` are left out."""
    names, waiting = set[str](), [scope]
    while waiting:
        node = waiting.pop()
        if node in unread or (isinstance(node, ast.stmt) and _is_message(node)):
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            names.add(node.id)
        if isinstance(node, ast.Call) and _takes_message(node):
            waiting.append(node.func)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            waiting.append(node.exc.func)
        elif isinstance(node, ast.Assert):
            waiting.append(node.test)
        else:
            children = [value for name, value in ast.iter_fields(node) if name not in SKIPPED]
            lists = (value if isinstance(value, list) else [value] for value in children)
            waiting += [child for child in chain.from_iterable(lists) if isinstance(child, ast.AST)]
    return names
