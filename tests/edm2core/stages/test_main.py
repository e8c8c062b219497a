import json
import subprocess
import sys
from pathlib import Path

from edm2core.config import load_experiment
from edm2core.exit_codes import BAD_INPUT
from edm2core.manifest import Ref
from edm2core.plan import plan
from edm2core.stages.main import work_folder
from edm2core.store import open_store


def test_a_task_of_another_version_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("{name: x, recipes: [digits/C], epochs: [1], metrics: [], probe: false}")
    task = plan(load_experiment(tmp_path / "e.yaml"), {"data:digits/C": "builtin:digits"})[0].to_json()
    task["settings"]["from_next_year"] = 1
    command = [sys.executable, "-m", "edm2core.stages.prepare", json.dumps(task), "--store", str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == BAD_INPUT
    assert "another version of this program: from_next_year" in done.stderr
    assert "make images" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_process_that_lost_its_lease_removes_nothing_of_its_successors(tmp_path: Path) -> None:
    store, ref = open_store(str(tmp_path)), Ref("probe", "k")
    with work_folder(store, ref, 0, 1) as lost:
        (lost / "features").write_text("old")
        with work_folder(store, ref, 0, 2) as mine, work_folder(store, ref, 1, 2) as other_rank:
            assert list(mine.iterdir()) == []
            assert not lost.exists()  # what an earlier one left goes
            (mine / "features").write_text("new")
            with work_folder(store, ref, 0, 1):  # it wakes up, and ends
                pass
            assert (mine / "features").read_text() == "new"
            assert other_rank.exists()
