"""`python -m bench.gpu.packages`: the few packages that a machine with torch, and without a network, lacks for the session.

Here, with a network, `--gather` fills a folder of wheels. There, without it, those that cannot be imported are installed from that folder,
beside the repository's files; nothing of the machine's own Python changes.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

NEEDED = {
    "annotated_types": "annotated-types",
    "ema_pytorch": "ema-pytorch",
    "hypothesis": "hypothesis",
    "jinja2": "jinja2",
    "PIL": "pillow",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "tenacity": "tenacity",
    "tensorboard": "tensorboard",
    "torch_fidelity": "torch-fidelity",
    "typing_inspection": "typing-inspection",
    "yaml": "pyyaml",
}
"""What the session imports beside torch and torchvision: the module, and its distribution."""
TARGET = Path(".gpu-packages")
LOCK = Path(__file__).parents[2] / "requirements-dev.lock"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu.packages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the folder of wheels")
    parser.add_argument("--gather", metavar="PYTHON", help="download the wheels for that version of Python, such as 3.12")
    arguments = parser.parse_args()
    sys.exit(gather(arguments.folder, arguments.gather) if arguments.gather else install(arguments.folder))


def gather(folder: Path, python: str) -> int:
    """Download the locked versions, for Linux on x86-64."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    command += ["--python-version", python, "--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"]
    return subprocess.run([*command, *locked(LOCK.read_text(encoding="utf-8"))]).returncode


def locked(lock: str) -> list[str]:
    """NAME==VERSION of each needed distribution, from the text of the lock."""
    versions = dict(re.findall(r"^([a-z0-9-]+)(?:\[[^]]*\])?==(\S+)", lock, re.MULTILINE))
    return [f"{name}=={versions[name]}" for name in NEEDED.values()]


def install(folder: Path) -> int:
    """Install what cannot be imported from the folder alone, and say what was missing."""
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if not missing:
        print("Every package that the session needs is here.")
        return 0
    print(f"Installing from {folder} into {TARGET}: {', '.join(missing)}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links", str(folder)]
    return subprocess.run([*command, "--target", str(TARGET), *missing]).returncode


if __name__ == "__main__":
    main()
