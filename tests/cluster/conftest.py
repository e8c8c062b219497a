"""The namespaces that all cluster tests share."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from edm2core.store import open_store
from tests.cluster.lab import EPOCHS, Lab, Undisturbed, kubectl, until

K8S = Path(__file__).parents[2] / "k8s"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pods are slower than processes, and a test's time is counted with its fixtures'."""
    for item in items:
        if item.get_closest_marker("cluster"):
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
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
        lab.delete_jobs()
        until(lambda: True if not lab.pods() else None, 60, lambda: "pods are left")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `kubectl apply -k k8s/overlays/lab` makes, in a namespace of another name."""
    name, folder = f"edm2-test-{secrets.token_hex(3)}", tmp_path_factory.mktemp("overlay")
    lab = os.path.relpath(K8S / "overlays" / "lab", folder)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": name, "resources": [lab]}))
    kubectl("apply", "-k", str(folder))
    try:
        kubectl("-n", name, "rollout", "status", "deployment/minio", "--timeout=300s")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def undisturbed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The training that faults disturb, by two processes here."""
    store = open_store(str(tmp_path_factory.mktemp("undisturbed")))
    prepare, training = lab.tasks([EPOCHS])
    lab.here(prepare, store)
    return Undisturbed(store, lab.here(training, store, processes=2))
