"""Brings a data set to its prepared form."""

from collections import deque

from edm2core.data import load_prepared, prepare_data
from edm2core.data.degenerate import checked
from edm2core.data.split import blocks_of
from edm2core.events import emit
from edm2core.worker.fetching import brought, data_settings
from edm2core.worker.main import main
from edm2core.worker.workspace import Workspace


def run(work: Workspace) -> None:
    """Result: the prepared form, and its description as metadata. Raises InputError if the training images are all alike."""
    progress = lambda done, total: work.progress(done, total, unit="images")  # noqa: E731
    settings = data_settings(work.settings)
    source = brought(work) if settings.needs_source else None
    work.metadata |= prepare_data(settings, source, work.out, progress, bool(work.settings.get("revised")))
    deque(checked(blocks_of(load_prepared(work.out).train_images), "training images"), maxlen=0)
    if work.metadata.get("warning"):
        emit("warning", message=work.metadata["warning"])


if __name__ == "__main__":
    main("prepare", run)
