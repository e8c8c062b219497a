"""An installed wheel, away from the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.cli.options import EXPERIMENTS

ROOT = Path(__file__).parents[2]
NAMES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "edm2core", "components", "pipelines", "k8s", "experiments")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel of this repository installs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, since building leaves files beside what it builds
    source.mkdir()
    for name in NAMES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def edm2(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pipelines.cli.main", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.slow
def test_a_wheel_holds_the_bundled_profiles_and_experiments(installed: Path, tmp_path: Path) -> None:
    assert (installed / "edm2" / "stores.py").exists()
    assert not (installed / "pipelines" / "python").exists()
    packaged = installed / "pipelines" / "experiments"
    assert {file.name: file.read_bytes() for file in packaged.iterdir()} == {file.name: file.read_bytes() for file in EXPERIMENTS.iterdir()}
    planned = edm2(installed, tmp_path, "plan", "demo")
    assert "G · seed 0" in planned.stdout, planned.stderr
    compiled = edm2(installed, tmp_path, "compile", "demo", "--cluster", "gpu", "--out", "package.yaml")
    assert compiled.returncode == 0, compiled.stderr
    assert (tmp_path / "package.yaml").exists()
    for arguments, folder in (
        (("plan", "dmo"), packaged),
        (("cancel", "run", "--cluster", "gpuu"), installed / "components/launcher/k8s/profiles"),
    ):
        refused = edm2(installed, tmp_path, *arguments)
        assert refused.returncode == 2
        assert "Did you mean" in refused.stderr
        assert f"where: {folder}\n" in refused.stderr
