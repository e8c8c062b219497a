"""What processes that compute inherit of their surroundings, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping

LAUNCHERS = ("PET_", "TORCHELASTIC_", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_")
"""How another launcher's variables begin: they would make one process wait for others that are not of this work."""
ALIKE = {
    "PYTHONSAFEPATH": "1",  # a file in the folder that a command runs in is not imported in place of a library
    "PYTHONUTF8": "1",  # paths and texts are read alike in any locale
}


def of_one_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for processes that look for no others beyond this machine."""
    left_out = (*LAUNCHERS, "PYTHONWARNINGS")  # by which a library's warning can be an error
    return {name: value for name, value in environ.items() if not name.startswith(left_out)} | ALIKE
