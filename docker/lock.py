"""Writes every lock file from pyproject.toml and constraints.txt, and how much each of those that `make` installs downloads.

`make lock` runs it, through uv. All locks hold the same versions: the others are resolved under requirements-dev.lock.
"""

import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.markers import Marker
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).parents[1]
PYTHON = (3, 11)
EVERYTHING = ("compute", "mlflow", "dev")
LINUX = (*(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)), "manylinux2014_x86_64", "manylinux1_x86_64", "linux_x86_64")
MAC = tuple(mac_platforms((14, 0), "arm64"))
PLATFORMS = {  # as `uname -sm` says it: what an environment marker may ask, and the wheels that fit
    "Linux x86_64": ({"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}, LINUX),
    "Darwin arm64": ({"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}, MAC),
}


def main() -> None:
    lock("requirements-dev.lock", "pyproject.toml", "-c", "constraints.txt", extras=EVERYTHING)
    lock("requirements.lock", "pyproject.toml", extras=("compute",))
    lock("docker/control.lock", "pyproject.toml", extras=("mlflow",))
    lock("docker/compute.lock", "pyproject.toml", extras=("compute", "mlflow"))
    lock("docker/build.lock", "-", text="setuptools>=77")
    lock("docker/uv.lock", "-", text="uv")
    sizes = sizes_of_files()
    for name in ("requirements.lock", "requirements-dev.lock"):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        lines = [f"# download on {platform}: {megabytes(text, platform, sizes):,.0f} MB\n" for platform in PLATFORMS]
        path.write_text("".join(lines) + text, encoding="utf-8")


def lock(out: str, *sources: str, extras: Iterable[str] = (), text: str = "") -> None:
    """Resolve into a file of versions and hashes for every platform; all but the first are held to the first's versions."""
    shared = () if out == "requirements-dev.lock" else ("-c", "requirements-dev.lock")
    options = ("--quiet", "--universal", "--python-version", ".".join(map(str, PYTHON)), "--generate-hashes", "--no-annotate")
    command = ("uv", "pip", "compile", *options, "--custom-compile-command", "make lock", *(f"--extra={extra}" for extra in extras))
    subprocess.run([*command, *shared, "-o", out, *sources], cwd=ROOT, input=text, text=True, encoding="utf-8", check=True)


def sizes_of_files() -> dict[tuple[str, str], dict[str, int]]:
    """The files of every locked package and version, with their sizes in bytes, as the package index states them."""
    with tempfile.TemporaryDirectory() as folder:
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        locks = locked((ROOT / "requirements-dev.lock").read_text(encoding="utf-8"))
        pins = [f"{name}=={version}" + (f"; {marker}" if marker else "") for name, version, marker in locks]
        settings = f"[tool.uv]\npackage = false\nconstraint-dependencies = {pins}\n"
        Path(folder, "pyproject.toml").write_text(f"{project}\n{settings}", encoding="utf-8")
        subprocess.run(["uv", "lock", "--quiet", "--project", folder], check=True)
        packages = tomllib.loads(Path(folder, "uv.lock").read_text(encoding="utf-8"))["package"]
    return {(p["name"], p.get("version", "")): dict(files_of(p)) for p in packages}


def files_of(package: dict) -> Iterator[tuple[str, int]]:  # type: ignore[type-arg]
    for file in [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]:
        if "size" in file:
            yield file["url"].rpartition("/")[2], file["size"]


def locked(text: str) -> list[tuple[str, str, str]]:
    """Name, version and marker of each package in a lock file."""
    return re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)(?: ; (.*?))? \\$", text, flags=re.MULTILINE)


def megabytes(text: str, platform: str, sizes: dict[tuple[str, str], dict[str, int]]) -> float:
    """What installing a lock file downloads on a platform."""
    environment, platforms = PLATFORMS[platform]
    environment = environment | {"python_version": "3.11", "python_full_version": "3.11.9"}
    environment |= {"platform_python_implementation": "CPython", "implementation_name": "cpython"}
    tags = [*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, "cp311", platforms)]
    wanted = [(name, version) for name, version, marker in locked(text) if not marker or Marker(marker).evaluate(environment)]
    return sum(size_of(sizes.get(package, {}), tags) for package in wanted) / 1e6


def size_of(files: dict[str, int], tags: list[Tag]) -> int:
    """The size of the best wheel for these tags, else of the source."""
    ranks = {tag: rank for rank, tag in enumerate(tags)}
    fitting = [
        (min(ranks[tag] for tag in parse_wheel_filename(name)[3] if tag in ranks), size)
        for name, size in files.items()
        if name.endswith(".whl") and any(tag in ranks for tag in parse_wheel_filename(name)[3])
    ]
    return min(fitting)[1] if fitting else next((size for name, size in files.items() if not name.endswith(".whl")), 0)


if __name__ == "__main__":
    main()
