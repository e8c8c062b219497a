"""Text is UTF-8 wherever it is written or read, whatever the locale says."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXTUAL = {"read_text": 0, "write_text": 1, "open": 0, "run": 0, "Popen": 0, "check_output": 0}
OTHERS = ("Image", "os", "tarfile", "zipfile", "gzip", "webbrowser", "h5py")  # whose open() is of something else


def unsaid(file: Path) -> Iterator[str]:
    """The calls that leave the encoding of a text to the locale."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
        whose = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        named = {keyword.arg for keyword in node.keywords}
        if name not in TEXTUAL or whose in OTHERS or "encoding" in named or None in named:
            continue
        if name in ("run", "Popen", "check_output"):
            if whose == "subprocess" and "text" in named:
                yield f"{file.relative_to(ROOT)}:{node.lineno}"
            continue
        constants = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        modes = [value for value in constants if isinstance(value, str) and set(value) <= set("rwaxbt+")]
        if name == "open" and (any("b" in mode for mode in modes) or (whose and not modes and not whose.endswith(("path", "file")))):
            continue
        if name == "read_text" and node.args:
            continue
        yield f"{file.relative_to(ROOT)}:{node.lineno}"


def test_no_text_is_read_or_written_in_the_locales_encoding() -> None:
    files = [file for part in ("edm2core", "components", "pipelines", "bench", "docker", "k8s") for file in (ROOT / part).rglob("*.py")]
    assert len(files) > 100
    assert [place for file in files for place in unsaid(file)] == []
