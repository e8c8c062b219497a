"""Sample grids of the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edm2core.config.settings import SampleSettings
from edm2core.diffusion.latents import drawn_labels
from edm2core.report.html import render
from edm2core.report.samples import Picture, named
from edm2core.stages.sample import rows_by_class, shard_name

if TYPE_CHECKING:
    from conftest import Fake

CONDITIONAL = {"{training.epochs: 60}": "{training.epochs: 60, network.classes: 10}"}


@pytest.mark.parametrize("classes", [2, 10, 11, 37, 100, 200])
def test_rows_are_named_after_the_classes_that_the_stage_draws(tmp_path: Path, classes: int) -> None:
    count = 64 * classes
    labels = drawn_labels(0, 0, range(count), classes).numpy()
    np.save(tmp_path / shard_name(0), labels.astype(np.uint8).reshape(-1, 1, 1, 1))
    rows = rows_by_class(tmp_path, SampleSettings(count=count, shard=count), classes)
    picture = named(Picture(1, "data:", 8, len(rows) // 8), [str(label) for label in range(classes)])
    assert picture.names == tuple(str(label) for label in rows[::8, 0, 0, 0])


def test_the_page_names_the_rows_of_the_grid_by_class(another: Callable[..., Fake]) -> None:
    fake = another(CONDITIONAL, make=False)
    fake.metadata["prepare"] = {"counts": {"train": 1437, "test": 360}, "classes": [f"<{number}>" for number in range(10)]}
    page = render(fake.make().report())
    names = [f'<li title="&lt;{number}&gt;">&lt;{number}&gt;</li>' for number in (0, 1, 3, 4, 5, 6, 8, 9)]  # of a grid of eight rows
    assert f"<ol>{''.join(names)}</ol>" in page


def test_rows_of_data_whose_classes_are_not_recorded_have_no_names(another: Callable[..., Fake]) -> None:
    assert "<ol><li title" not in render(another(CONDITIONAL).report())
