"""What the control image imports needs nothing of what only the compute image has."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORTED_AS = {"pillow": "PIL", "scikit-learn": "sklearn", "ema-pytorch": "ema_pytorch", "torch-fidelity": "torch_fidelity"}
PROGRAM = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Missing())
import components, pipelines
for package in (components, pipelines):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, error)
"""


def test_no_module_of_components_and_pipelines_needs_what_the_control_image_lacks() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]["compute"]
    names = [requirement.split("=")[0].split(">")[0] for requirement in extra]
    missing = [IMPORTED_AS.get(name, name) for name in names]
    assert "safetensors" in missing
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *missing], capture_output=True, text=True, cwd=ROOT, check=True)
    needing = {line.split()[0] for line in ran.stdout.splitlines()}
    assert needing <= {"pipelines.cli.calibrate"}, ran.stdout  # which looks at images on this machine
