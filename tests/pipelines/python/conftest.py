"""A finished run that an earlier version wrote: two recipes of digits, one epoch."""

import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).parents[2] / "data" / "earlier_store.tar.xz"
RUN = "earlier-3ff39a"


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "store"
