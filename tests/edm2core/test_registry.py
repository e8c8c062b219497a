import subprocess
import sys
from typing import Any

import pytest

from edm2core import registry
from edm2core.metrics import kernel_distance as kernel
from edm2core.metrics import neighbours
from edm2core.metrics.extractors import inception
from edm2core.registry import load

TABLES: dict[str, dict[str, Any]] = {name: table for name, table in vars(registry).items() if name.isupper() and isinstance(table, dict)}
ADDRESSES = {
    (name, choice, text)
    for name, table in TABLES.items()
    for choice, facts in table.items()
    for text in (facts if isinstance(facts, tuple) else (facts,))
    if isinstance(text, str) and text.startswith("edm2core.")
}


def test_every_family_is_there() -> None:
    assert {name for name, _, _ in ADDRESSES} == {
        "NETWORKS",
        "WEIGHTINGS",
        "SCHEDULES",
        "OPTIMIZERS",
        "AUGMENTATIONS",
        "SOLVERS",
        "NOISE_SCHEDULES",
        "METRICS",
        "EXTRACTORS",
        "FORMATS",
    }


@pytest.mark.parametrize("address", sorted({text for _, _, text in ADDRESSES}))
def test_every_address_names_something_callable(address: str) -> None:
    assert callable(load(address))


def test_the_tables_are_read_without_what_they_name() -> None:
    code = "import edm2core.registry, sys; print({'torch', 'numpy', 'PIL', 'sklearn', 'pydantic'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_least_images_are_those_that_the_computations_need() -> None:
    least = {name: metric.least_images for name, metric in registry.METRICS.items()}
    assert least["kid"] == kernel.SUBSET
    assert least["is"] == inception.SPLITS
    assert least["density"] == neighbours.COUNTED + 1
