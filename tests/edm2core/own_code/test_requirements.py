"""What own code imports is looked at before anything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edm2core.errors import InputError
from edm2core.own_code.requirements import missing, refuse_neighbours
from edm2core.own_code.settings import Library
from edm2core.own_code.source import OwnCode

Package = Callable[..., OwnCode]


def write(folder: Path, **files: str) -> OwnCode:
    """A module of one file `single`, and its neighbours."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return OwnCode("single", folder / "single.py")


def test_packages_that_are_not_installed_are_named_with_their_line(package: Package) -> None:
    code = package(
        nets="import math\nimport torch\nimport not_installed_anywhere\ntry:\n    import optional_one\nexcept ImportError: ...\n"
    )
    assert list(missing(code)) == [("not_installed_anywhere", "mine/nets.py, line 3,")]


@pytest.mark.parametrize(
    "text",
    [
        "from sharedutil import f\n",
        "import math, sharedutil.deep\n",
        "def g():\n    import sharedutil\n",
        "from .sharedutil import f\n",
        "from . import sharedutil\n",
    ],
)
def test_a_module_of_one_file_cannot_import_its_neighbours(text: str, tmp_path: Path) -> None:
    write(tmp_path, single=text, sharedutil="f = 1\n")
    with pytest.raises(InputError, match="'single' is a module of one file, and imports its neighbour 'sharedutil'") as error:
        Library(tmp_path).package("single:f", "e.yaml, line 3")
    assert f"single.py, line {2 if 'def' in text else 1}" in error.value.where
    assert "Make it a package" in error.value.do_next


@pytest.mark.parametrize(
    "text", ["import math\nimport click\n", "try:\n    import sharedutil\nexcept ImportError: ...\n", "import single\n"]
)
def test_other_imports_are_no_neighbours(text: str, tmp_path: Path) -> None:
    refuse_neighbours(write(tmp_path, single=text, sharedutil="", click=""), "single")


def test_a_package_imports_its_files_by_its_own_name_and_none_beside_it(package: Package, tmp_path: Path) -> None:
    refuse_neighbours(
        package(nets="from mine.shared import f\nfrom .shared import f\nfrom . import shared\n", shared="f = 1\n"), "mine.nets"
    )
    with pytest.raises(InputError, match="imports its own 'shared' as if that were no part of it") as error:
        refuse_neighbours(package(nets="from shared import f\n"), "mine.nets")
    assert error.value.do_next == "Write `from mine.shared import …`."
    (tmp_path / "beside.py").write_text("")
    with pytest.raises(InputError, match="imports 'beside', which lies beside it"):
        refuse_neighbours(package(nets="import beside\n", metrics="from . import nets\n"), "mine.metrics")
    refuse_neighbours(package(metrics="", plot="import nets\n"), "mine.metrics")  # a script, which no task imports
