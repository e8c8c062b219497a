"""By which code results are made: a working copy's changes are kept, and a process's code is that with which it began."""

import json
import platform
import re
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from edm2core.plan.experiment import load_experiment
from edm2core.plan.manifest import Manifest, diff_path
from edm2core.plan.plan import plan
from edm2core.provenance.origin import MOST_CHANGES, _device
from edm2core.provenance.science import PACKAGE, science_of
from edm2core.store import open_store
from edm2core.store.results import load

GIT = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
SAYS = "import sys; from edm2core.provenance.origin import changes; sys.stdout.write(changes(sys.argv[1]))"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed copy of the package, not to be changed."""
    clone = tmp_path_factory.mktemp("committed") / "clone"
    shutil.copytree(PACKAGE, clone / "edm2core", ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, *command], cwd=clone, check=True)
    return clone


@pytest.fixture
def checkout(committed: Path, tmp_path: Path) -> Path:
    """The same, to be changed. Its processes find the digests of a science that another has computed."""
    (tmp_path / "cache").symlink_to(committed.parent / "cache")
    (committed.parent / "cache").mkdir(exist_ok=True)
    return Path(shutil.copytree(committed, tmp_path / "clone"))


def python(checkout: Path, *arguments: str) -> str:
    environment = {"PYTHONPATH": str(checkout), "EDM2_CACHE": str(checkout.parent / "cache"), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, *arguments], env=environment, cwd=checkout, capture_output=True, text=True, check=True)
    return ran.stdout


def prepared(checkout: Path, store: Path) -> Manifest:
    """The digits, prepared by a copy of the package."""
    (checkout / "e.yaml").write_text("{name: x, recipes: [digits/C], epochs: [1], metrics: [], probe: false}")
    task = plan(load_experiment(checkout / "e.yaml"), {"data:digits/C": "builtin:digits"})[0]
    python(checkout, "-m", "edm2core.stages.prepare", json.dumps(task.to_json()), "--store", str(store))
    manifest = load(open_store(str(store)), task.ref)
    assert manifest is not None
    return manifest


def append(file: Path, line: str) -> None:
    with file.open("a") as source:
        source.write(f"\n{line}\n")


def test_changes_are_those_of_tracked_files_that_the_stage_is_made_by(checkout: Path) -> None:
    package = checkout / "edm2core"
    append(package / "diffusion/denoiser.py", 'SECRET = "https://user:hunter2@host/x?token=abc"')
    append(package / "data" / "write.py", "WRITE = 1")
    append(package / "report" / "html.py", "REPORT = 1")
    append(package / "new.py", "NEW = 1")
    training, preparing = (python(checkout, "-c", SAYS, stage) for stage in ("snapshot", "prepare"))
    assert '+SECRET = "https://host/x"' in training
    assert "hunter2" not in training
    assert "abc" not in training
    assert "+WRITE = 1" not in training
    assert "+WRITE = 1" in preparing
    assert not {"+REPORT = 1", "+NEW = 1"} & {*training.splitlines(), *preparing.splitlines()}


def test_changes_that_are_staged_count_and_very_many_are_cut(checkout: Path) -> None:
    append(checkout / "edm2core" / "diffusion/denoiser.py", "LONG = 1\n" + "# a line\n" * MOST_CHANGES)
    subprocess.run([*GIT, "add", "."], cwd=checkout, check=True)
    found = python(checkout, "-c", SAYS, "snapshot")
    assert "+LONG = 1" in found
    assert MOST_CHANGES < len(found) < MOST_CHANGES + 100
    assert found.endswith("the rest was left out\n")


def test_a_result_names_its_science_and_the_changes_it_was_made_with(checkout: Path) -> None:
    clean = prepared(checkout, checkout.parent / "clean")
    assert clean.science == science_of("prepare")
    assert "diff" not in clean.provenance
    append(checkout / "edm2core" / "data" / "write.py", "WRITE = 1")
    changed = prepared(checkout, checkout.parent / "changed")
    assert changed.science not in ("", clean.science)
    kept = open_store(str(checkout.parent / "changed")).read(diff_path(changed.provenance["diff"]))
    assert b"+WRITE = 1" in kept
    assert sha256(kept).hexdigest() == changed.provenance["diff"]


def test_a_process_is_of_the_code_that_it_began_with(checkout: Path) -> None:
    program = (
        "from edm2core.provenance.origin import changes, remember_code\n"
        "from edm2core.provenance.science import PACKAGE, science_of\n"
        "remember_code(); (PACKAGE / 'diffusion/denoiser.py').write_text('changed = 1')\n"
        "print(science_of('snapshot'), repr(changes('snapshot')))"
    )
    assert python(checkout, "-c", program).split() == [science_of("snapshot"), "''"]
    assert python(checkout, "-c", SAYS, "snapshot")


def test_a_cpu_is_named_by_its_model_where_the_system_says_it() -> None:
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    assert _device().startswith(model[1] if model else platform.machine())


@pytest.mark.slow
def test_a_package_outside_of_any_checkout_has_a_science_and_no_changes(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert prepared(checkout, checkout.parent / "store").science == science_of("prepare")
    assert python(checkout, "-c", SAYS, "snapshot") == ""
