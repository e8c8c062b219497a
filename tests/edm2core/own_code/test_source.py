import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.data.source import digest_of
from edm2core.errors import InputError
from edm2core.own_code.source import MOST_BYTES, OwnCode, content_digest, find

Package = Callable[..., OwnCode]


def test_the_content_is_of_all_files_and_of_nothing_that_python_makes(package: Package, tmp_path: Path) -> None:
    code = package(nets="x = 1")
    before = code.content
    (code.path / "__pycache__").mkdir()
    (code.path / "__pycache__" / "nets.pyc").write_bytes(b"1")
    (code.path / ".git").mkdir()
    assert code.content == before
    (code.path / "table.csv").write_text("1")
    assert code.content != before
    assert content_digest(code.content) == digest_of(code.copy(tmp_path / "copy"))


def test_a_module_is_found_beside_the_experiment_or_installed(package: Package, tmp_path: Path) -> None:
    package()
    (tmp_path / "single.py").write_text("")
    assert find("mine", tmp_path, "e.yaml").path == tmp_path / "mine"
    assert list(find("single", tmp_path, "e.yaml").files()) == ["single.py"]
    installed = find("click", tmp_path, "e.yaml")
    assert installed.installed.startswith("click==")
    assert installed.content.startswith(f"{installed.installed} sha256:")


@pytest.mark.parametrize(
    ("name", "words"), [("absent", "There is no module or package"), ("json", "of Python itself"), ("click", "two packages")]
)
def test_a_name_that_is_missing_or_means_another_module_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("")
    with pytest.raises(InputError, match=words):
        find(name, tmp_path, "e.yaml, line 3")


def test_links_out_of_the_folder_sockets_and_large_files_are_refused(package: Package, tmp_path: Path) -> None:
    code = package()
    (tmp_path / "outside.py").write_text("")
    (code.path / "link.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(InputError, match="leads out"):
        code.files()
    (code.path / "link.py").unlink()
    (code.path / "alias.py").symlink_to("__init__.py")
    assert "mine/alias.py" in code.files()
    here = Path.cwd()
    os.chdir(code.path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        os.chdir(here)
        with pytest.raises(InputError, match="neither a file nor a folder"):
            code.files()
    (code.path / "socket").unlink()
    with (code.path / "weights.bin").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(InputError, match=r"50\.0 MB"):
        code.files()
