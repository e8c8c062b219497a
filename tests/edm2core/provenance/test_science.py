"""Which code counts as a stage's science: what can change its numbers, and nothing else."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest

from edm2core.provenance import science
from edm2core.provenance.science import NOT_FOLLOWED, PACKAGE, SCIENCE, STAGES, here, science_of, sciences
from edm2core.provenance.syntax import Module, Package, Use

NUMERIC = re.compile(r"^\s*(?:import|from) (?:torch|numpy|scipy|sklearn|PIL|torchvision|torch_fidelity|safetensors)\b", re.MULTILINE)


@pytest.fixture(autouse=True, scope="module")
def _modules_that_no_test_has_changed_are_digested_once() -> Iterator[None]:
    """A digest follows from the module's text and path, and from which modules and what `__init__` files the package has."""
    known: dict[Any, tuple[str, frozenset[Use]]] = {}
    packages: WeakKeyDictionary[Package, Any] = WeakKeyDictionary()

    def around(package: Package) -> Any:
        if package not in packages:
            files = sorted(package.folder.rglob("*.py"))
            packages[package] = (
                package.folder.name,
                *((str(f.relative_to(package.folder)), f.stem == "__init__" and f.read_text()) for f in files),
            )
        return packages[package]

    def digest(module: Module) -> str:
        key = module._path, (module._package.folder / module._path).read_text(), around(module._package)
        if key not in known:
            known[key] = compute(module), frozenset(module._used)
        found, used = known[key]
        module._used |= used
        return found

    compute = Module.__dict__["digest"].func
    with pytest.MonkeyPatch.context() as during:
        remembered = cached_property(digest)
        remembered.__set_name__(Module, "digest")
        during.setattr(Module, "digest", remembered)
        yield


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "edm2core", ignore=shutil.ignore_patterns("__pycache__", "*.yaml", "templates")))


def change(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text, f"{file.name} has no {before!r}"
    file.write_text(text.replace(before, after))


def changed(copy: Path) -> set[str]:
    """The stages whose science is another in the copy."""
    there = sciences(copy)
    return {stage for stage in STAGES if here()[stage].digest != there[stage].digest}


def is_changed(stage: str, copy: Path) -> bool:
    """Whether one stage's science is another in the copy."""
    return not Package(copy, SCIENCE, NOT_FOLLOWED).digest(f"stages/{STAGES[stage]}.py").startswith(here()[stage].digest)


def test_what_computes_with_arrays_is_science_or_a_stage() -> None:
    """A new module that does belongs into SCIENCE of edm2core/provenance/science.py."""
    computing = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py") if NUMERIC.search(path.read_text())
    }
    assert computing - {"conformance", "stages", "report", "worker"} <= SCIENCE
    assert {path.stem for path in PACKAGE.iterdir()} >= SCIENCE


def test_a_changed_loss_is_other_science_of_what_has_it(copy: Path) -> None:
    text = (copy / "diffusion/loss.py").read_text()
    returned = re.search(r"def edm\(.*\n(?:    .*\n)*?    return (.*)\n", text)
    assert returned
    (copy / "diffusion/loss.py").write_text(text.replace(returned[1], f"2 * ({returned[1]})"))
    found = changed(copy)
    assert {"snapshot", "average", "diagnostics"} <= found
    assert not found & {"prepare", "sample", "probe", "extractor", "reference", "metrics", "calibration"}


def test_other_stages_and_readers_of_data_are_no_science_of_a_training(copy: Path) -> None:
    for file in (
        "stages/sample.py",
        "stages/metrics.py",
        "data/formats/cifar.py",
        "data/formats/images.py",
        "data/download.py",
        "metrics/values.py",
    ):
        with (copy / file).open("a") as source:
            source.write("\nEPSILON = 1e-6\n")
    found = changed(copy)
    assert not found & {"snapshot", "average", "ema", "diagnostics"}
    assert {"sample", "metrics", "prepare"} <= found


def test_code_that_the_registry_names_is_science_of_who_loads_it(copy: Path) -> None:
    change(copy / "metrics/kernel_distance.py", "SUBSETS = 100", "SUBSETS = 99")
    assert is_changed("metrics", copy)
    assert not is_changed("sample", copy)
    (copy / "diffusion/own.py").write_text("def own(denoise, x, sigmas, noise):\n    return x\n")
    change(copy / "registry.py", '"heun": Solver(', '"own": Solver("edm2core.diffusion.own:own", 1), "heun": Solver(')
    assert changed(copy) == {"metrics", "sample"}


def test_the_store_the_worker_and_the_report_are_no_science(copy: Path) -> None:
    own = {f"stages/{name}.py" for name in STAGES.values()}
    files = [path for path in copy.rglob("*.py") if path.relative_to(copy).parts[0].removesuffix(".py") not in SCIENCE]
    for file in (file for file in files if file.relative_to(copy).as_posix() not in own):
        with file.open("a") as source:
            source.write("\nEPSILON = 1e-6\n")
    assert changed(copy) == set()


def test_everything_else_is_science_of_some_stage() -> None:
    reached = {path for stage in here().values() for path in stage.files}
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.stem != "__init__"}
    assert {path for path in files if path.split("/")[0].removesuffix(".py") in SCIENCE} <= reached | {"data/source.py", "data/download.py"}


CHANGE_NO_NUMBER = [  # file, text before, text after
    ("diffusion/loss.py", "def edm", "# a comment\n\n\ndef edm"),
    ("data/prepared.py", "Reading the prepared", "How to read the prepared"),
    (
        "diffusion/training_state.py",
        "self.steps % self.steps_per_epoch == 0",
        "(\n            self.steps  %  self.steps_per_epoch ==\n            0\n        )",
    ),
    ("data/scale.py", "-> ", "-> 'None' or "),
    ("metrics/kernel_distance.py", "SUBSET = 1000", "SUBSET: int = 1000"),
    ("diffusion/training_state.py", "denoiser: Denoiser = field(init=False)", "denoiser: 'torch.nn.Module' = field(init=False)"),
    ("diffusion/sampler.py", "import torch\n", "import contextlib\nimport torch\n"),
    ("stages/train.py", "hundreds of times slower", "far slower"),
    ("stages/sample.py", "the network gives no numbers", "no numbers come"),
    ("stages/sample.py", "Sample in fp32", "Use fp32"),
    ("stages/sample.py", 'unit="images"', 'unit="pictures"'),
    ("data/write.py", "The folder for the prepared data is not empty", "It is not empty"),
]


def test_what_changes_no_number_changes_no_science(copy: Path) -> None:
    original = Package(PACKAGE, SCIENCE, NOT_FOLLOWED)
    for file, before, after in CHANGE_NO_NUMBER:
        change(copy / file, before, after)
        assert Package(copy, SCIENCE, NOT_FOLLOWED).module(file).digest == original.module(file).digest, (file, before)
    assert changed(copy) == set()


MAY_CHANGE_A_NUMBER = [
    ("diffusion/schedules.py", "import math\n", "import numpy as math\n"),  # another function by the same name
    ("diffusion/layers.py", "math.hypot(1 - t, t)", "math.hypot(t, t)"),
    ("diffusion/training_state.py", "steps: int = 0", "steps: int = 1"),
    ("diffusion/training_state.py", "began_at: int = 0", ""),
    ("diffusion/optimizers.py", "[*matrices, *others], lr=lr", "[*others, *matrices], lr=lr"),
]


def test_what_may_change_a_number_changes_the_science(copy: Path) -> None:
    original = Package(PACKAGE, SCIENCE, NOT_FOLLOWED)
    for file, before, after in MAY_CHANGE_A_NUMBER:
        assert file in here()["snapshot"].files
        change(copy / file, before, after)
        assert Package(copy, SCIENCE, NOT_FOLLOWED).module(file).digest != original.module(file).digest, (file, before)
        shutil.copy(PACKAGE / file, copy / file)
    change(copy / "diffusion/layers.py", *MAY_CHANGE_A_NUMBER[1][1:])
    assert is_changed("snapshot", copy)


def test_a_variable_that_only_words_an_error_is_no_science(tmp_path: Path) -> None:
    def digest(body: str) -> str:
        folder = tmp_path / "p"
        folder.mkdir(exist_ok=True)
        (folder / "stage.py").write_text(f"def run(x, emit, names):\n{body}")
        return Package(folder, {"stage"}, set()).digest("stage.py")

    raised = "    if x < 0:\n        raise ValueError(words)\n    return x\n"
    plain = digest("    if x < 0:\n        raise ValueError('negative')\n    return x\n")
    assert digest(f"    listed = ', '.join(names)\n    words = f'{{x}} of {{listed}}'\n{raised}") == plain
    assert digest(f"    emit('begin')\n    if x == 3:\n        emit('three')\n    words = 'no'\n{raised}") == plain
    assert digest(f"    words = f'{{x}}'\n{raised.replace('return x', 'return words')}") != plain
    assert digest(f"    words = next(names)\n{raised}") != plain


def rename(package: Path, before: str, after: str) -> None:
    """Move a module as a person would: its file, and the import lines of all others."""
    target = package / f"{after.replace('.', '/')}.py"
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in (parent for parent in target.parents if package in parent.parents):
        (folder / "__init__.py").touch()
    (package / f"{before.replace('.', '/')}.py").rename(target)
    for file in package.rglob("*.py"):
        text = re.sub(rf"\bedm2core\.{re.escape(before)}\b", f"edm2core.{after}", file.read_text())
        (room, _, name), (new_room, _, new_name) = f"edm2core.{before}".rpartition("."), f"edm2core.{after}".rpartition(".")
        text = re.sub(rf"from {re.escape(room)} import {name}\b", f"from {new_room} import {new_name}", text)
        text = text if name == new_name else re.sub(rf"(import {new_name})(?= as |$)(?! as )", rf"\1 as {name}", text, flags=re.MULTILINE)
        file.write_text(text)


def test_a_module_that_is_moved_is_the_same_science(copy: Path) -> None:
    for before, after in {
        "diffusion.layers": "networks.blocks.layers",
        "snapshots.files": "snapshots.saved",
        "diffusion.sampler": "sampling.sampler",
        "data.scale": "affine",
        "errors": "words.errors",
        "store.averages": "store.mixing.averages",
        "metrics.gaussian": "metrics.distances.normal",
    }.items():
        rename(copy, before, after)
    moved = sciences(copy, SCIENCE | {"networks", "sampling", "affine"})
    assert {stage: found.digest for stage, found in moved.items()} == {stage: found.digest for stage, found in here().items()}


def test_how_a_name_is_imported_is_no_science(copy: Path) -> None:
    change(copy / "diffusion/posthoc.py", "import numpy as np", "import numpy")
    file = copy / "diffusion/posthoc.py"
    file.write_text(re.sub(r"\bnp\.", "numpy.", file.read_text()))
    change(
        copy / "stages" / "ema.py",
        "from edm2core.snapshots import files as snapshot",
        "from edm2core.snapshots.files import load, save\nimport edm2core.snapshots.files",
    )
    file = copy / "stages" / "ema.py"
    file.write_text(re.sub(r"(?<!\.)\bsnapshot\.(load|save)\b", r"edm2core.snapshots.files.\1", file.read_text()))
    change(copy / "diffusion/trainer.py", "from edm2core.diffusion.schedules import", "from .schedules import")
    change(
        copy / "stages" / "prepare.py",
        "from edm2core.data import load_prepared, prepare_data",
        "from edm2core.data.prepared import load_prepared\nfrom edm2core.data.write import prepare_data",
    )
    assert changed(copy) == set()


def test_a_name_from_another_module_of_the_science_is_other_science(tmp_path: Path) -> None:
    def digest(stage: str) -> str:
        (tmp_path / "p").mkdir(exist_ok=True)
        for name, text in {"a": "def f(x):\n    return x\n", "b": "def f(x):\n    return -x\n", "stage": stage}.items():
            (tmp_path / "p" / f"{name}.py").write_text(text)
        return Package(tmp_path / "p", {"a", "b", "stage"}, set()).digest("stage.py")

    body = "\n\ndef run(x):\n    return f(x)\n"
    assert digest(f"from p import a, b\nfrom p.a import f{body}") != digest(f"from p import a, b\nfrom p.b import f{body}")


FAST = ("prepare", "snapshot", "metrics")


@pytest.mark.parametrize("stage", [pytest.param(stage, marks=[] if stage in FAST else [pytest.mark.slow]) for stage in STAGES])
def test_every_stage_has_a_science_of_its_own_module(stage: str, copy: Path) -> None:
    assert re.fullmatch("[0-9a-f]{20}", science_of(stage))
    assert f"stages/{STAGES[stage]}.py" in here()[stage].files
    with (copy / "stages" / f"{STAGES[stage]}.py").open("a") as source:
        source.write("\nEPSILON = 1e-6\n")
    assert is_changed(stage, copy)


def test_the_science_is_known_without_importing_it_wherever_the_package_lies(copy: Path, tmp_path: Path) -> None:
    program = "import sys; from edm2core.provenance.science import science_of; print(science_of('snapshot'), 'torch' in sys.modules)"
    shutil.copy(science.EQUAL, copy)
    environment = {"PYTHONPATH": str(tmp_path), "EDM2_CACHE": str(tmp_path / "cache"), "PATH": ""}
    for _ in range(2):  # taken from the source, then kept
        found = subprocess.run([sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert found.stdout.split() == [science_of("snapshot"), "False"]
    assert len(list((tmp_path / "cache" / "science").iterdir())) == 1


def test_sciences_that_the_list_calls_equal_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(science, "equal", lambda: {"b": "a", "c": "a"})
    assert science.same("c", "a")
    assert science.same("b", "c")
    assert science.canonical("c") == "a"
    assert not science.same("a", "d")


def test_the_list_of_equal_sciences_can_be_read() -> None:
    hexadecimal: Callable[[str], bool] = lambda text: re.fullmatch("[0-9a-f]{20}", text) is not None  # noqa: E731
    assert all(hexadecimal(now) and hexadecimal(before) for now, before in science.equal().items())
