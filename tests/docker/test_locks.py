"""The images' lock files: the same versions as everywhere, all hashed, and torch only where it belongs."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked(name: str) -> dict[str, str]:
    """Package → version in a lock file, names as pip compares them."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in pins}


def wanted(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", line)[0]).lower() for line in lines}


@pytest.mark.parametrize("name", ["requirements.lock", "docker/control.lock", "docker/compute.lock"])
def test_versions_are_those_of_development(name: str) -> None:
    everywhere = locked("requirements-dev.lock")
    assert {package: version for package, version in locked(name).items() if everywhere.get(package, version) != version} == {}


@pytest.mark.parametrize("name", sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.lock"), *ROOT.glob("docker/*.lock"))))
def test_every_package_is_named_with_its_digests(name: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.splitlines()[0] for block in blocks if "--hash=sha256:" not in block] == []


def test_locks_hold_what_the_project_asks_for() -> None:
    assert wanted() <= set(locked("docker/control.lock"))
    assert wanted("compute") <= set(locked("docker/compute.lock"))


def test_running_installs_nothing_that_only_developing_takes() -> None:
    assert wanted("compute") <= set(locked("requirements.lock"))
    assert (wanted("dev", "mlflow") - wanted("compute")) & set(locked("requirements.lock")) == set()
    assert wanted("compute", "mlflow", "dev") <= set(locked("requirements-dev.lock"))


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_says_how_much_it_downloads(name: str) -> None:
    said = re.findall(r"^# download on (Linux x86_64|Darwin arm64): ([\d,]+) MB$", (ROOT / name).read_text(), re.MULTILINE)
    assert [platform for platform, _ in said] == ["Linux x86_64", "Darwin arm64"]
    assert int(said[0][1].replace(",", "")) > 1000  # CUDA's libraries


def test_control_carries_no_torch() -> None:
    heavy = {"torch", "torchvision", "scipy", "scikit-learn", "triton"}
    assert heavy & set(locked("docker/control.lock")) == set()
    assert heavy <= set(locked("docker/compute.lock"))


def test_both_images_run_as_a_user_that_kubernetes_knows_not_to_be_root() -> None:
    stages = re.split(r"^FROM ", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    for target in ("control", "compute"):
        (stage,) = [stage for stage in stages if stage.splitlines()[0].endswith(f"AS {target}")]
        assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", stage, re.MULTILINE)
        assert "org.opencontainers.image.revision" in stage
