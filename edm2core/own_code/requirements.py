"""What own code imports that is not installed, read from its source."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from edm2core.own_code.source import OwnCode


def missing(code: OwnCode) -> Iterator[tuple[str, str]]:
    """The packages that its files import at their top and that this Python does not find, each with the first file and line."""
    seen: set[str] = set()
    for name, path in sorted(code.files().items()):
        if not name.endswith(".py"):
            continue
        for module, line in _imported(path):
            top = module.partition(".")[0]
            if top not in seen and top != code.name and top not in sys.stdlib_module_names:
                seen.add(top)
                if find_spec(top) is None:
                    yield top, f"{name}, line {line},"


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules that a file always imports: those in `try` or in functions may be left out on purpose."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # which the signature's reader says
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module, node.lineno
