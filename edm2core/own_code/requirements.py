"""What own code imports, read from its source: packages that are not installed, and files beside it, which do not go along with it."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edm2core.errors import InputError
from edm2core.own_code.signature import imported_module, module_file, parsed
from edm2core.own_code.source import OwnCode, installed_package


def missing(code: OwnCode) -> Iterator[tuple[str, str]]:
    """The packages that its files import at their top and that this Python does not find, each with the first file and line."""
    seen: set[str] = set()
    for name, path in sorted(code.files().items()):
        for node in _tree(path).body if name.endswith(".py") else ():  # imports in `try` or in functions may be left out on purpose
            for top in _imported(node):
                if top not in seen and top != code.name and top not in sys.stdlib_module_names:
                    seen.add(top)
                    if find_spec(top) is None:
                        yield top, f"{name}, line {node.lineno},"


def refuse_neighbours(code: OwnCode, module: str) -> None:
    """Raise InputError, with file and line, if a module or what it imports imports a file that lies beside it and that no task would find.

    A task gets the module or package alone, so a module of one file cannot import its neighbours, and within a package a file is imported
    by the package's name.
    """
    if code.installed:
        return
    for path in _reached(code, module):
        for node in _always_run(path):
            if isinstance(node, ast.ImportFrom) and node.level:
                neighbours = [node.module or node.names[0].name] if code.path.is_file() else []
            else:
                neighbours = [top for top in _imported(node) if _is_neighbour(top, path, code)]
            if neighbours:
                raise _refused(code, neighbours[0].partition(".")[0], path, node.lineno)


def _reached(code: OwnCode, module: str) -> Iterator[Path]:
    """The files of the package that importing a module imports. A script among its files may import what it likes."""
    waiting, seen = [module], set[Path]()
    while waiting:
        module = waiting.pop()
        path = module_file(code, module)
        if path is None or path in seen:
            continue
        seen.add(path)
        yield path
        waiting += [module.rpartition(".")[0]] * ("." in module)
        for node in _always_run(path):
            if isinstance(node, ast.ImportFrom) and (base := imported_module(code, module, path, node)):
                waiting += [base, *(f"{base}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names if alias.name.partition(".")[0] == code.name]


def _is_neighbour(module: str, path: Path, code: OwnCode) -> bool:
    """Whether a module lies beside the file that imports it, or beside the package, and Python would not find it without that."""
    if module == code.name or module in sys.stdlib_module_names:
        return False
    beside = any((folder / f"{module}.py").is_file() or (folder / module).is_dir() for folder in (path.parent, code.path.parent))
    return beside and installed_package(module, code.path.parent) is None


def _refused(code: OwnCode, module: str, path: Path, line: int) -> InputError:
    name = code.name
    if code.path.is_file():
        what = (
            f"'{name}' is a module of one file, and imports its neighbour '{module}': tasks get that one file, so they would not find it."
        )
        do_next = f"Make it a package: a folder '{name}' with both files and an __init__.py, where `from {name}.{module} import …` works."
    elif (path.parent / f"{module}.py").is_file() or (path.parent / module).is_dir():
        what = f"The package '{name}' imports its own '{module}' as if that were no part of it."
        do_next = f"Write `from {'.'.join(path.relative_to(code.path.parent).parent.parts)}.{module} import …`."
    else:
        what = f"The package '{name}' imports '{module}', which lies beside it: tasks get the package alone, so they would not find it."
        do_next = f"Put it into the folder {code.path}, and write `from {name}.{module} import …`."
    return InputError(what, where=f"{path}, line {line}", do_next=do_next)


def _imported(node: ast.stmt) -> list[str]:
    """The packages and modules at the top that a statement imports; none by a relative import."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module]
    return [name.partition(".")[0] for name in names]


def _always_run(path: Path) -> Iterator[ast.stmt]:
    """The file's statements, those of functions and classes too. What stands in `try` may fail on purpose."""
    waiting: list[ast.AST] = [_tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.Try):
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _tree(path: Path) -> ast.Module:
    try:
        return parsed(path)
    except InputError:  # which the reader of its signature raises
        return ast.Module([], [])
