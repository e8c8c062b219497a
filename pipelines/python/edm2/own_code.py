"""Brings an own solver into this process, from the folder of the user's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edm2core.config.yaml_file import Document, Origin
from edm2core.own_code.settings import Library, with_own_settings
from edm2core.registry import is_own, own_package
from edm2core.store.own_code import brought, import_from, is_here, kept_folder


def with_own_solver(given: Mapping[str, Any], folder: Path | None, origin: Origin) -> dict[str, Any]:
    """The settings of sampling, those of an own solver checked by its signature and gathered. Its code is imported by this process.

    The solver lies in `folder`; without one it is what this process has imported already, else it lies in the working directory or is
    installed. Raises InputError if it is not there, for a wrong setting, and if this process has another version of it already.
    """
    solver = given.get("solver")
    if not is_own(solver):
        return dict(given)
    library, package = Library(folder or Path(), do_next="Name its folder: edm2.sample(…, code='folder')."), own_package(str(solver))
    here = brought(package)
    if here and folder is None:
        library.found[package] = here
    document = with_own_settings(Document({"sample": dict(given)}, {(): origin, ("sample",): origin}), library)
    code = library.found[package]
    if code is not here and not is_here({package: code.content}):
        import_from(code.copy(kept_folder()), package, code.content)
    settings: dict[str, Any] = document.values["sample"]
    return settings
