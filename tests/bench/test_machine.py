import shutil
import subprocess
from pathlib import Path

import pytest

from bench import machine


def test_what_a_benchmark_writes_does_not_make_its_commit_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    shutil.copy(machine.__file__, folder)
    for name in machine.WRITTEN:
        (folder / name).write_text("before")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(machine, "__file__", str(folder / "machine.py"))
    found = machine.commit()
    (folder / "results.json").write_text("after")
    assert machine.commit() == found != "unknown"
    (folder / "machine.py").write_text("after")
    assert machine.commit() == f"{found}-dirty"
