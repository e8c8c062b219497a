"""Brings a data set to its prepared form."""

from __future__ import annotations

import os
from pathlib import Path

from edm2core.config.settings import DataSettings
from edm2core.data import fetch, prepare
from edm2core.events import emit
from edm2core.stages.main import main
from edm2core.stages.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: the prepared form, and its description as metadata."""
    if work.rank:
        return
    settings = DataSettings.model_validate(work.settings)
    source = fetch(settings, download_folder(), lambda done, total: work.progress(done, total, unit="bytes"))
    work.metadata |= prepare(settings, source, work.out, lambda done, total: work.progress(done, total, unit="images"))
    if work.metadata.get("warning"):
        emit("warning", message=work.metadata["warning"])


def download_folder() -> Path:
    """Where downloads are kept between tasks, and unfinished ones continued: `EDM2_CACHE`, else edm2 in the user's cache."""
    cache = os.environ.get("EDM2_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edm2"
    return Path(cache).expanduser()


if __name__ == "__main__":
    main("prepare", run)
