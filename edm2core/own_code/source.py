"""The files of own code: a module or package beside the experiment, or an installed one. They are found and digested, never imported."""

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions, version
from pathlib import Path

from edm2core.data.source import digest_of, digest_of_entries
from edm2core.errors import InputError
from edm2core.words import size

MOST_BYTES = 50_000_000  # of a package: it travels to every pod
LEFT_OUT = ("__pycache__", "__MACOSX")  # made by Python and by macOS: no part of the code
BESIDE = "Put it beside the experiment file, name its folder by `code:`, or install it."


@dataclass(frozen=True)
class OwnCode:
    """A module or package of the user's."""

    name: str  # as Python imports it
    path: Path  # of its file or folder
    installed: str = ""  # name==version of the distribution that installed it; empty beside an experiment

    def files(self) -> dict[str, Path]:
        """Its files by their paths below the folder that Python would import it from, without what Python makes of them.

        Raises InputError for links that lead out of it, for what is neither a file nor a folder, and for more than 50 MB.
        """
        files = dict(_files(self.path, self.path.parent))
        total = sum(path.stat().st_size for path in files.values())
        if total > MOST_BYTES:
            what = f"The package '{self.name}' has {size(total)}, more than the {size(MOST_BYTES)} that own code may have."
            do_next = "Leave large files out of its folder; weights and images are data with settings of their own."
            raise InputError(what, where=str(self.path), do_next=do_next)
        return files

    @property
    def content(self) -> str:
        """What keys hold of it: the digest of its files; of an installed one its name and version before that."""
        digest = digest_of_entries({name: digest_of(path) for name, path in self.files().items()}, "sha256")
        return f"{self.installed} {digest}".strip()

    def copy(self, folder: Path) -> Path:
        """Copy its files below `folder`, from which Python can then import it."""
        for name, path in self.files().items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        return folder


def content_digest(content: str) -> str:
    """The digest in what keys hold of own code: the name of its files among the sources of a store."""
    return content.rpartition(" ")[2]


def brief_content(content: str) -> str:
    """The short form of it that a person is shown: 12 digits of the digest; of an installed package its name and version before that."""
    return f"{content.rpartition(' ')[0]} {content_digest(content).rpartition(':')[2][:12]}".strip()


def find(name: str, folder: Path, where: str, do_next: str = BESIDE) -> OwnCode:
    """The module or package of that name in a folder, or else the installed one.

    Raises InputError, which names `where` it was asked for, if there is none, with the advice `do_next`, if two are called so, and for a
    module of Python itself.
    """
    beside = next((path for path in (folder / name, folder / f"{name}.py") if path.exists()), None)
    if name in sys.stdlib_module_names:
        raise InputError(f"'{name}' is a module of Python itself.", where=where, do_next="Give your package another name.")
    installed = installed_package(name, folder)
    if beside and installed and installed.path.resolve() != beside.resolve():
        what = f"There are two packages '{name}': {beside} and the installed {installed.path}."
        raise InputError(what, where=where, do_next="Rename your own, so that it is clear which is meant.")
    if beside:
        return OwnCode(name, beside)
    if installed:
        return installed
    raise InputError(f"There is no module or package '{name}' in {folder}, and none is installed.", where=where, do_next=do_next)


def installed_package(name: str, folder: Path) -> OwnCode | None:
    """The installed package of that name. Python's finder reads no code to find a package at the top."""
    paths = [entry for entry in sys.path if entry and Path(entry).resolve() != folder.resolve()]
    spec = PathFinder.find_spec(name, paths)
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    path = Path(places[0]) if places else Path(str(spec.origin))
    distribution = next(iter(packages_distributions().get(name, ())), "")
    if not distribution:  # such as a folder of the working directory, which is not what the user means by installed
        return None
    return OwnCode(name, path, f"{distribution}=={version(distribution)}")


def _files(path: Path, base: Path) -> Iterator[tuple[str, Path]]:
    """The files of a file or folder by their paths below `base`, sorted. Hidden ones are left out."""
    root = path.resolve()
    if path.is_file():
        yield path.name, path
        return
    for folder, folders, names in os.walk(path, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("."))
        for each in (Path(folder) / name for name in [*folders, *names] if not name.startswith(".")):
            _check(each, root)
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(".pyc"):
                yield (Path(folder) / name).relative_to(base).as_posix(), Path(folder) / name


def _unreadable(error: OSError) -> None:
    raise InputError(f"It cannot be read: {error.strerror}.", where=str(error.filename), do_next="Check its permissions.")


def _check(path: Path, root: Path) -> None:
    if path.is_symlink():
        if not path.resolve().is_relative_to(root) or path.is_dir() or not path.exists():
            what = "A link in the own code leads out of its folder, to a folder or nowhere, so its content could not be taken along."
            raise InputError(what, where=str(path), do_next="Put the file itself there.")
    elif not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        what = "The own code's folder holds what is neither a file nor a folder, such as a socket."
        raise InputError(what, where=str(path), do_next="Remove it from the folder.")
