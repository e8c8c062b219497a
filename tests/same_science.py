"""Adds to science_equal.yaml that a change of code moved no number, once golden and parity tests pass.

`make same-science SINCE=<revision> WHY="what changed"`. Without it, users' trainings would not go on under the changed code. Each stage's
science before is that of the revision, worked out by its own code; where numbers have changed, raise the stage's version instead.
"""

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = "edm2core/provenance/science_equal.yaml"
TESTS = (
    *("tests/edm2core/diffusion", "tests/edm2core/snapshots", "tests/edm2core/plan/test_tasks.py"),
    *("tests/edm2core/metrics", "tests/edm2core/probe", "tests/edm2core/data"),
)
DIGESTS = """
import json
try:
    from edm2core.provenance.science import here
except ModuleNotFoundError:  # a revision from before the module moved
    from edm2core.science import here
print(json.dumps({stage: found.digest for stage, found in here().items()}))
"""
Digests = Mapping[str, str]


def digests(tree: Path) -> dict[str, str]:
    """The science of every stage, by a tree's own code. Raises SystemExit with words for a tree that has none."""
    ran = subprocess.run(
        [sys.executable, "-c", DIGESTS], cwd=tree, env={"PYTHONPATH": str(tree), "PATH": ""}, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"The science of {tree} cannot be told: {(ran.stderr.splitlines() or ['?'])[-1]}")
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def digests_at(revision: str, root: Path = ROOT) -> dict[str, str]:
    """The science of every stage at a revision."""
    archive = subprocess.run(["git", "-C", str(root), "archive", revision, "edm2core"], capture_output=True)
    if archive.returncode:
        raise SystemExit(f"There is no revision {revision} of edm2core here: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
        tree.extractall(folder, filter="data")
        return digests(Path(folder))


def line(why: str, before: Digests, now: Digests) -> str:
    """The line for stages whose science has changed; nothing where none has."""
    same = {before[stage]: now[stage] for stage in before if stage in now and before[stage] != now[stage]}
    pairs = ", ".join(f'"{old}": "{new}"' for old, new in same.items())
    return f"- {{change: {json.dumps(why, ensure_ascii=False)}, same: {{{pairs}}}}}\n" if same else ""


def add(text: str, entry: str) -> str:
    """The list with a line more."""
    return text.removesuffix("[]\n") + entry


def main(revision: str, why: str) -> None:
    entry = line(why, digests_at(revision), digests(ROOT))
    if not entry:
        raise SystemExit(f"The science of every stage is that of {revision}: there is nothing to add.")
    if subprocess.run([sys.executable, "-m", "pytest", *TESTS], cwd=ROOT).returncode:
        raise SystemExit("Numbers have changed, or a test is broken: the line was not added. Raise the versions of stages that changed.")
    path = ROOT / LIST
    path.write_text(add(path.read_text(encoding="utf-8"), entry), encoding="utf-8")
    sys.stdout.write(f"Added to {LIST}:\n{entry}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or not all(sys.argv[1:]):
        raise SystemExit('make same-science SINCE=<revision> WHY="what changed"')
    main(*sys.argv[1:])
