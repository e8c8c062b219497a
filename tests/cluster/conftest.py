"""The namespace that all cluster tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from edm2core.store import open_store
from tests.cluster.lab import Lab, kubectl, until


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("minio") / "data")
    lab.up()
    try:
        lab.here(lab.tasks([1])[0], open_store("s3://edm2/test"))
        yield lab
    finally:
        if not os.environ.get("EDM2_TEST_KEEP"):
            lab.down()


@pytest.fixture(autouse=True)
def no_jobs_are_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test's jobs end with it."""
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        kubectl("-n", lab.namespace, "delete", "pytorchjobs", "--all", "--wait=false")
        until(lambda: True if not lab.pods() else None, 60, lambda: "pods are left")
