from components.launcher.processes import ALIKE, of_one_machine


def test_a_launchers_variables_do_not_reach_processes_of_one_machine() -> None:
    left = {"RANK": "1", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "x", "PET_NNODES": "4", "TORCHELASTIC_RUN_ID": "x"}
    kept = {"PATH": "/bin", "EDM2_CACHE": "/c", "AWS_PROFILE": "mine", "SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0"}
    assert of_one_machine({**left, **kept, "PYTHONWARNINGS": "error", "PYTHONUTF8": "0"}) == {**kept, **ALIKE}
