"""Own code in a stage's process: it comes from the store, and its errors are told as its author's."""

import subprocess
import sys
from pathlib import Path

import pytest

from edm2core.data.source import digest_of
from edm2core.errors import InputError, MissingError
from edm2core.store import open_store
from edm2core.store.uploaded_sources import put

PROGRAM = """
import sys
from pathlib import Path
from edm2core.registry import load
from edm2core.store import open_store
from edm2core.worker.main import own_code
from edm2core.store.own_code import OwnCodeError

store, digest, folder = sys.argv[1:]
try:
    with own_code({"mine": digest}, open_store(store), Path(folder)):
        print(load("mine.code:answer")())
except OwnCodeError as error:
    print(error)
    print("\\n".join(error.lines))
"""


def run(tmp_path: Path, text: str) -> str:
    package = tmp_path / "source" / "mine"
    package.mkdir(parents=True)
    (package / "code.py").write_text(text)
    store = open_store(str(tmp_path / "store"))
    put(store, digest := digest_of(package.parent), package.parent, tmp_path / "scratch")
    arguments = [sys.executable, "-c", PROGRAM, store.uri, digest, str(tmp_path / "work")]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def test_it_is_imported_from_the_store(tmp_path: Path) -> None:
    assert run(tmp_path, "def answer():\n    return 42\n") == "42\n"


def test_its_error_names_its_file_and_line_and_shows_no_line_of_edm2(tmp_path: Path) -> None:
    said = run(tmp_path, "def answer():\n    return helper()\n\ndef helper():\n    return 1 / 0\n")
    assert "The experiment's own code failed: ZeroDivisionError: division by zero" in said
    assert "where: mine/code.py, line 5, in helper" in said
    assert "mine/code.py, line 2, in answer\n    return helper()" in said
    assert "edm2core" not in said


def test_what_it_imports_and_is_not_installed_is_said(tmp_path: Path) -> None:
    said = run(tmp_path, "import not_installed_anywhere\n")
    assert "No module named 'not_installed_anywhere'" in said
    assert "Install it where tasks run" in said


def test_code_that_the_store_lacks_and_another_version_of_it_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edm2core.store import own_code

    monkeypatch.setattr(own_code, "_BROUGHT", {"mine": ("sha256:1", tmp_path)})
    store = open_store(str(tmp_path / "store"))
    own_code.bring({"mine": "sha256:1"}, store, tmp_path)
    with pytest.raises(InputError, match="another version of 'mine'"):
        own_code.bring({"mine": "sha256:2"}, store, tmp_path)
    with pytest.raises(MissingError, match="'other' is not in the store"):
        own_code.bring({"other": "sha256:3"}, store, tmp_path)
