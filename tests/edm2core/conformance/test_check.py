"""`edm2 check`: the examples pass, and what is wrong is said in words."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "data"


def check(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pipelines.cli.main", "check", *arguments, "--code", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    ["solvers:euler_ancestral", "loss:soft_min_snr", "lr:cosine_restarts", "opt:momentum", "metrics:colour_histogram", "data:shapes"],
)
@pytest.mark.slow
def test_each_example_passes(name: str) -> None:
    code, said = check(EXAMPLES, f"my_science.{name}")
    assert code == 0, said
    assert "problem" not in said


def test_the_example_of_a_network_passes_every_check() -> None:
    code, said = check(EXAMPLES, "my_science.nets:TinyDiT", "--set", "depth=1", "--set", "width=16", "--resolution", "8")
    assert code == 0, said
    checks = ("builds", "shapes", "gradients", "autocast", "determinism", "resume", "feature blocks")
    assert [line.split()[1] for line in said.splitlines()[1:]] == [f"{each.split()[0]}{'' if ' ' in each else ':'}" for each in checks]


def test_a_faulty_network_is_told_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(
        """
import torch
import not_installed_anywhere
"""
    )
    code, said = check(tmp_path, "faulty:Net")
    assert code == 2
    assert "There is no function or class 'faulty:Net'" in said
    (tmp_path / "faulty.py").write_text(
        """
import torch
class Net(torch.nn.Module):
    def __init__(self, image_channels):
        super().__init__()
        self.used, self.unused = (torch.nn.Conv2d(image_channels, image_channels, 1) for _ in range(2))
    def forward(self, x, c_noise, labels):
        return self.used(x) + (torch.rand(()) if not self.training else 0)
"""
    )
    code, said = check(tmp_path, "faulty:Net", "--resolution", "8")
    assert code == 1
    assert "gradients: these parameters get no gradient: unused.weight, unused.bias → Use them in every forward" in said
    assert "feature blocks: it offers no feature_blocks" in said


def test_an_error_in_the_code_has_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("def solve(denoise, x, sigmas, noise):\n    return denoise(x)\n")
    code, said = check(tmp_path, "faulty:solve")
    assert code == 1
    assert "faulty.py, line 2, in solve" in said
    assert "    return denoise(x)" in said
    assert "Traceback" not in said
