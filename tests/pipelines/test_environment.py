"""The real command in environments that others left: launchers' variables, other locales, folders with files of the user's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EDM2 = Path(sys.executable).parent / "edm2"
LEFT_BY_OTHERS = {
    **{"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"},
    **{"GROUP_RANK": "1", "ROLE_RANK": "1", "PET_NNODES": "4", "PET_RDZV_ENDPOINT": "nowhere.invalid:1", "TORCHELASTIC_RUN_ID": "x"},
    **{"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "3", "SLURM_NODELIST": "n[1-4]", "SLURM_JOB_ID": "1"},
    **{"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "PMI_RANK": "3", "PMI_SIZE": "8", "OMP_NUM_THREADS": "3"},
    **{"CUDA_VISIBLE_DEVICES": "0,1,2,3", "NVIDIA_VISIBLE_DEVICES": "all"},
    **{"AWS_REGION": "nowhere-1", "AWS_PROFILE": "none", "AWS_ACCESS_KEY_ID": "x", "MINIO_ROOT_USER": "x", "AWS_CA_BUNDLE": "/nowhere"},
    **{"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": "x"},
    **{"KUBECONFIG": "/nowhere:/nor/here", "KF_PIPELINES_ENDPOINT": "http://127.0.0.1:9", "KUBERNETES_SERVICE_HOST": "127.0.0.1"},
    **{"PYTHONWARNINGS": "error", "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    **{"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/nowhere", "COLUMNS": "20", "LINES": "1", "TERM": "dumb", "NO_COLOR": "1"},
    **{"TMPDIR": "/nowhere", "LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "TZ": "Asia/Kathmandu"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an experiment, called and commented in more than ASCII, beside files that are called as libraries are."""
    folder = tmp_path / "größe 日本"
    folder.mkdir()
    for name in ("numpy", "yaml", "random", "torch", "components", "edm2core", "pipelines"):
        (folder / f"{name}.py").write_text("raise SystemExit('a file of the folder was imported')\n")
    text = "# σ und ö\nname: e\nrecipes: [digits/C]\nepochs: [1]\nmetrics: [fd]\n"
    (folder / "é.yaml").write_text(text, encoding="utf-8")
    return folder


def edm2(folder: Path, *arguments: str, **more: str) -> "subprocess.CompletedProcess[bytes]":
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    kept["EDM2_CACHE"] = str(folder / "cache")
    return subprocess.run([EDM2, *arguments], cwd=folder, env={**kept, **more}, capture_output=True, check=False, timeout=200)


@pytest.mark.slow
def test_what_others_left_in_the_environment_changes_no_plan_and_no_result(folder: Path) -> None:
    plans = [edm2(folder, "plan", "é.yaml", "--json", **more) for more in ({}, LEFT_BY_OTHERS)]
    assert [plan.returncode for plan in plans] == [0, 0], plans[1].stderr.decode()
    assert plans[0].stdout == plans[1].stdout
    key = plans[0].stdout.decode().partition('"stage": "prepare"')[2].partition('"key": "')[2].partition('"')[0]
    for store, more in (("clean", {}), ("left", LEFT_BY_OTHERS)):
        done = edm2(folder, "run", "é.yaml", "--store", store, "--only", f"prepare/{key}", **more)
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        [kept] = (folder / store).glob("runs/*/experiment.yaml")
        assert kept.read_bytes() == (folder / "é.yaml").read_bytes()
    arrays = [{path.name: path.read_bytes() for path in (folder / store).glob("results/prepare/*/*/*.npy")} for store in ("clean", "left")]
    assert arrays[0]
    assert arrays[0] == arrays[1]


@pytest.mark.parametrize("arguments", [["recipes"], ["--help"], ["plan", "é.yaml"]])
def test_output_that_cannot_be_written_is_said_to_be_so(folder: Path, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([EDM2, *arguments], cwd=folder, stdout=full, stderr=subprocess.PIPE, check=False, timeout=100)
    said = done.stderr.decode()
    assert done.returncode == 1
    assert "What this command prints cannot be written: No space left on device." in said
    assert "should not have happened" not in said
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    with open("/dev/full", "wb") as full:
        assert subprocess.run([EDM2, "runs", "nowhere"], cwd=folder, stderr=full, check=False, timeout=100).returncode == 2


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    done = subprocess.run(f"'{EDM2}' recipes | head -1", shell=True, cwd=folder, stderr=subprocess.PIPE, check=False, timeout=100)
    assert done.stderr == b""


def test_a_working_directory_that_was_deleted_is_said_to_be_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(f"cd '{gone}' && rmdir '{gone}' && '{EDM2}' plan e", shell=True, capture_output=True, check=False, timeout=99)
    assert done.returncode == 2
    assert "The folder that this command runs in was deleted." in done.stderr.decode()
    assert "cd" in done.stderr.decode()


def test_a_home_that_nobody_knows_is_said_to_be_so(folder: Path) -> None:
    done = edm2(folder, "plan", "~nobody-of-this-name/e.yaml")
    assert done.returncode == 2
    assert "The home folder that ~ stands for" in done.stderr.decode()
