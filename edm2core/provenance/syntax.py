"""Digests of Python source by what it does. Formatting, words, types and the places of modules do not change them."""

import ast
import hashlib
import json
import re
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

TYPES = ("annotation", "returns", "type_comment", "type_params")  # the fields of nodes that hold types
NOT_WRITTEN = (*TYPES, "ctx", "kind")
MESSAGE_FUNCTIONS = frozenset({"emit", "print", "progress", "warn"})  # functions that only say something
EXCEPTION_ENDINGS = ("Error", "Exception", "Warning", "Interrupted")  # the ends of the names of exceptions, which take words
EFFECTS = (ast.Call, ast.NamedExpr, ast.Await, ast.Yield)  # expressions whose evaluation may do something
REGISTRY, LOAD = "registry.py", "load"  # the module of tables that name code, and the function that imports that code
ADDRESS = re.compile(r"['\"](\w+)\.([\w.]+):(\w+)['\"]")  # "package.module:callable"


class Use(NamedTuple):
    """A name where it is defined: the path of its module in the package, or "" for another package's; and its name there."""

    path: str
    name: str


class Package:
    """The modules of a package, by their paths in its folder. They are parsed when they are first needed.

    `science` names the modules and packages at its top whose code counts. The imports of those in `not_followed`
    are not followed; a module within a package is named there by its path.
    """

    def __init__(self, folder: Path, science: Collection[str], not_followed: Collection[str]) -> None:
        self.folder, self._science, self._not_followed = folder, science, not_followed
        self._modules: dict[str, Module] = {}

    def module(self, path: str) -> "Module":
        if path not in self._modules:
            self._modules[path] = Module(self, path)
        return self._modules[path]

    def reached(self, start: str) -> list[str]:
        """The paths of the science that a module's imports lead to, sorted, with the module's own."""
        reached, waiting = {start}, [start]
        while waiting:
            for path in self.module(waiting.pop()).leads_to - reached:
                if not {_top(path), path} & {*self._not_followed}:
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

    def meaning(self, dotted: str) -> Use:
        """Where a dotted name is defined. A name that the __init__ of a package only imports belongs to the module that defines it."""
        top, *parts = dotted.split(".")
        for length in range(len(parts), -1, -1) if top == self.folder.name else ():
            stem, rest = "/".join(parts[:length]), parts[length:]
            if stem and (self.folder / f"{stem}.py").is_file():
                return Use(f"{stem}.py", ".".join(rest))
            if (self.folder / stem / "__init__.py").is_file():
                path = f"{stem}/__init__.py".lstrip("/")
                imported = self.module(path).names.get(rest[0]) if rest else None
                return self.meaning(".".join([imported, *rest[1:]])) if imported else Use(path, ".".join(rest))
        return Use("", dotted)


class Module:
    """One module of a package."""

    def __init__(self, package: Package, path: str) -> None:
        self._package, self._path = package, path
        self._tree = ast.parse((package.folder / path).read_text(encoding="utf-8"))
        self._used: set[Use] = set()

    @cached_property
    def names(self) -> dict[str, str]:
        """The dotted name of what each import statement, anywhere in the module, binds to a name."""
        names: dict[str, str] = {}
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name if alias.asname else alias.name.partition(".")[0]
                    names[alias.asname or whole] = whole
                    if not alias.asname and "." in alias.name:  # `import a.b` binds `a` alone, and imports `a.b` too
                        names[f" {alias.name}"] = alias.name
            elif isinstance(node, ast.ImportFrom):
                parents = [self._package.folder.name, *self._path.split("/")[: -node.level]] if node.level else []
                for alias in node.names:
                    names[alias.asname or alias.name] = ".".join([*parents, *filter(None, [node.module]), alias.name])
        return names

    @cached_property
    def leads_to(self) -> set[str]:
        """The paths of the package's modules that its import statements lead to."""
        uses = {*map(self._package.meaning, self.names.values()), *self._loaded}
        return {use.path for use in uses if use.path} - {self._path}

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what its tree does."""
        return hashlib.sha256(json.dumps(_written(_without_words(_Numbers(self._means).visit(self._tree)))).encode()).hexdigest()

    @property
    def uses(self) -> set[Use]:
        """The names of the package's other modules in its tree."""
        return self._used | self._loaded if self.digest else set()  # computing the digest collects them

    @cached_property
    def _loaded(self) -> set[Use]:
        """The code in the tables of the registry from which this module loads."""
        tables = {use.name for use in map(self._package.meaning, self.names.values()) if use.path == REGISTRY}
        if LOAD not in tables:
            return set()
        return {use for table in tables for use in self._package.module(REGISTRY).named_in(table)}

    def named_in(self, table: str) -> set[Use]:
        """The package's code whose addresses stand in a table at this module's top."""
        tables = (node for node in self._tree.body if isinstance(node, ast.Assign) and table in map(ast.unparse, node.targets))
        addresses = (parts for node in tables for parts in ADDRESS.findall(ast.unparse(node.value)))
        return {self._package.meaning(".".join(parts)) for parts in addresses if parts[0] == self._package.folder.name}

    def _means(self, node: ast.Name | ast.Attribute) -> str:
        """What an imported name, or a chain of attributes that begins with one, is called where it is defined; "" for any other name."""
        first, *attributes = ast.unparse(node).split(".")
        if first not in self.names:
            return ""
        use = self._package.meaning(".".join([self.names[first], *attributes]))
        if use.path:
            use = Use(use.path, use.name or "module")
            self._used.add(use)
        return use.name


class _Numbers(ast.NodeTransformer):
    """Leaves of a tree what can change a number: no imports, types and messages. An imported name becomes what it `means`."""

    def __init__(self, means: Callable[[ast.Name | ast.Attribute], str]) -> None:
        self._means = means
        self._fields: set[ast.stmt] = set()  # annotations that declare the field of a class

    def visit(self, node: ast.AST) -> Any:
        for name in TYPES:
            if hasattr(node, name):
                setattr(node, name, None)
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass() | ast.Expr(value=ast.Constant()):
                return None
            case ast.Expr(value=ast.Call(func=func)) if _last_name(func) in MESSAGE_FUNCTIONS:
                return None
            case ast.Name() | ast.Attribute() if _is_dotted(node) and (meaning := self._means(node)):
                return ast.Name(f"imported {meaning}", ast.Load())
            case ast.Call(func=func) if _last_name(func) in MESSAGE_FUNCTIONS or _last_name(func).endswith(EXCEPTION_ENDINGS):
                node.args, node.keywords = [], []
            case ast.Raise(exc=ast.Call(func=func)):
                node.exc, node.cause = func, None
            case ast.Assert():
                node.msg = None
            case ast.ClassDef():
                self._fields |= {statement for statement in node.body if isinstance(statement, ast.AnnAssign)}
            case ast.AnnAssign(target=target, value=value) if node not in self._fields:
                return self.visit(ast.Assign([target], value)) if value else None
        return self.generic_visit(node)


class _Unread(ast.NodeTransformer):
    """Leaves out texts that are assigned to local or private names and never read, and conditions of nothing."""

    def __init__(self) -> None:
        self.removed = False
        self._unread: Callable[[str], bool] = lambda name: False  # whether nothing in the scope reads a name

    def visit(self, node: ast.AST) -> Any:
        outer = self._unread
        match node:
            case ast.Module() | ast.FunctionDef() | ast.AsyncFunctionDef():
                read = {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load)}
                public = isinstance(node, ast.Module)
                self._unread = lambda name: name not in read and (name.startswith("_") or not public)
            case ast.ClassDef():
                self._unread = lambda name: False
            case ast.Assign(targets=[target], value=value):
                pairs = [(target, value)]
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                    pairs = list(zip(target.elts, value.elts, strict=False))
                if all(isinstance(name, ast.Name) and self._unread(name.id) and _is_text(text) for name, text in pairs):
                    self.removed = True
                    return None
        self.generic_visit(node)
        self._unread = outer
        if isinstance(node, ast.If) and not node.body and not node.orelse:
            return node if any(isinstance(part, EFFECTS) for part in ast.walk(node.test)) else None
        return node


def _without_words(tree: ast.Module) -> ast.Module:
    """The tree without what only messages used. A text that only another such text uses goes too."""
    removed = True
    while removed:
        unread = _Unread()
        unread.visit(tree)
        removed = unread.removed
    return tree


def _written(node: Any) -> Any:
    """A tree as plain data: the kind of each node and its fields, but for those that are empty. 1, 1.0, True and "1" differ."""
    if isinstance(node, list):
        return [_written(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in NOT_WRITTEN and value is not None and value != []]
    return [type(node).__name__, *([name, _written(value)] for name, value in fields)]


def _top(path: str) -> str:
    return path.split("/")[0].removesuffix(".py")


def _is_dotted(node: ast.expr) -> bool:
    """Whether it is a name, or a chain of attributes of one."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Attribute) and _is_dotted(node.value))


def _last_name(node: ast.expr) -> str:
    """The last part of a dotted name; "" for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_text(value: ast.expr) -> bool:
    match value:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp(left=left, right=right):
            return _is_text(left) or _is_text(right)
        case ast.IfExp(body=body, orelse=orelse):
            return _is_text(body) and _is_text(orelse)
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()))):  # ", ".join(…)
            return True
    return False
