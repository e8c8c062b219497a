"""Writes every lock file from pyproject.toml and constraints.txt, and how much each of those that `make` installs downloads.

`make lock` runs it, through uv. All locks hold the same versions: the others are resolved under requirements-dev.lock.
"""

import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.pylock import Pylock
from packaging.tags import compatible_tags, cpython_tags, mac_platforms

ROOT = Path(__file__).parents[1]
PYTHON = (3, 11)
VERSION = {"python_version": "3.11", "python_full_version": "3.11.9"}
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
    for name in ("requirements.lock", "requirements-dev.lock"):
        path = ROOT / name
        files = Pylock.from_dict(tomllib.loads(compiled(name, "--no-deps", "--format", "pylock.toml")))
        lines = [f"# download on {platform}: {megabytes(files, platform):,.0f} MB\n" for platform in PLATFORMS]
        path.write_text("".join([*lines, path.read_text(encoding="utf-8")]), encoding="utf-8")


def lock(out: str, *sources: str, extras: Iterable[str] = (), text: str = "") -> None:
    """Resolve into a file of versions and hashes for every platform; all but the first are held to the first's versions."""
    shared = () if out == "requirements-dev.lock" else ("-c", "requirements-dev.lock")
    options = ("--generate-hashes", "--no-annotate", "--custom-compile-command", "make lock", *(f"--extra={extra}" for extra in extras))
    compiled(*options, *shared, "-o", out, *sources, text=text)


def compiled(*arguments: str, text: str = "") -> str:
    """What `uv pip compile` prints, for every platform."""
    command = ("uv", "pip", "compile", "--quiet", "--universal", "--python-version", ".".join(map(str, PYTHON)), *arguments)
    return subprocess.run(command, cwd=ROOT, input=text, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True).stdout


def megabytes(files: Pylock, platform: str) -> float:
    """What installing these files' best wheels on a platform downloads, or the source where no wheel fits."""
    environment, platforms = PLATFORMS[platform]
    tags = [*cpython_tags(PYTHON, platforms=platforms), *compatible_tags(PYTHON, "cp311", platforms)]
    return sum(file.size for _, file in files.select(environment={**VERSION, **environment}, tags=tags)) / 1e6


if __name__ == "__main__":
    main()
