"""`edm2 check`: the examples pass, and what is wrong is said in words."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.launcher.forks import fork
from pipelines.cli import check as command
from tests.forking import forking
from tests.pipelines.conftest import Edm2, edm2  # noqa: F401

EXAMPLES = Path(__file__).parents[2] / "data"
Check = Callable[..., tuple[int, str]]


class Forked:
    """Stands in for the `Popen` of a check's process: a fork of one that has imported torch."""

    def __init__(self, command: list[str], cwd: str, **_: Any) -> None:
        printed, output = os.pipe()
        self.stdout = os.fdopen(printed, encoding="utf-8")
        forked = fork(forking().address, ["-m", "tests.forked", cwd, *command[1:]], dict(os.environ), output, output)
        os.close(output)
        assert forked is not None
        self._fork, self.returncode = forked, 0

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.returncode = self._fork.wait()


@pytest.fixture
def whole_check(edm2: Edm2) -> Check:  # noqa: F811
    """Check code in a folder, and return the exit code and all that is printed."""
    return lambda folder, *arguments: edm2("check", *arguments, "--code", str(folder))


@pytest.fixture
def check(whole_check: Check, monkeypatch: pytest.MonkeyPatch) -> Check:
    """The same, but in a process that is forked, which saves it the seconds that importing torch takes."""
    monkeypatch.setattr(command, "subprocess", SimpleNamespace(Popen=Forked, PIPE=None, STDOUT=None))
    return whole_check


@pytest.mark.parametrize(
    "name",
    ["solvers:euler_ancestral", "lr:cosine_restarts", "opt:momentum", "metrics:colour_histogram", "data:shapes"],
)
@pytest.mark.slow
def test_each_example_passes(check: Check, name: str) -> None:
    code, said = check(EXAMPLES, f"my_science.{name}")
    assert code == 0, said
    assert "problem" not in said


def test_the_example_of_a_network_passes_every_check(whole_check: Check) -> None:
    code, said = whole_check(EXAMPLES, "my_science.nets:TinyDiT", "--set", "depth=1", "--set", "width=16", "--resolution", "8")
    assert code == 0, said
    checks = ("builds", "shapes", "gradients", "autocast", "determinism", "resume", "feature blocks")
    assert [line.split()[1] for line in said.splitlines()[1:]] == [f"{each.split()[0]}{'' if ' ' in each else ':'}" for each in checks]


def test_a_faulty_network_is_told_what_is_wrong_and_what_to_do(check: Check, tmp_path: Path) -> None:
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


def test_an_error_in_the_code_has_its_file_and_line(check: Check, tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text("def solve(denoise, x, sigmas, noise):\n    return denoise(x)\n")
    code, said = check(tmp_path, "faulty:solve")
    assert code == 1
    assert "faulty.py, line 2, in solve" in said
    assert "    return denoise(x)" in said
    assert "Traceback" not in said


METRICS = """
import numpy as np
def paired(samples, real): return float(np.abs(samples.astype(float) - real).mean())
def constant(samples, real): return 1.0
def negative(samples, real): return abs(float(samples.mean()) - float(real.mean())), -0.1
"""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("paired", "operands could not be broadcast together"),
        ("constant", "images alike and darker ones both score 1, so it tells nothing apart"),
        ("negative", "it gives a standard error of -0.1"),
    ],
)
def test_a_metric_that_would_fail_or_mislead_in_a_run_is_a_problem(check: Check, name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "kim_metrics.py").write_text(METRICS)
    code, said = check(tmp_path, f"kim_metrics:{name}", "--resolution", "8", "--channels", "1")
    assert code == 1, said
    assert words in said


def test_a_weighting_is_told_that_the_learned_one_evens_it_out(check: Check) -> None:
    code, said = check(EXAMPLES, "my_science.loss:soft_min_snr")
    assert code == 0, said
    assert "problem" not in said
    assert "note     learned weighting: a learned weighting evens λ out where diffusion.log_variance_features is not 0" in said


def test_a_weighting_is_tried_on_a_single_noise_level_as_diagnostics_ask_for_it(check: Check, tmp_path: Path) -> None:
    text = "def first(sigma, sigma_data):\n    return sigma / sigma[:1].mean()\n"
    (tmp_path / "kim_loss.py").write_text(text)
    code, said = check(tmp_path, "kim_loss:first")
    assert code == 1
    assert "kim_loss.py, line 2, in first" in said


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("kim_metrics.constant", "as in an experiment: kim_metrics:constant."),
        ("kim_metrics.py:constant", "Leave out .py, as in an import: kim_metrics."),
        ("lab/kim_metrics.py:constant", "as in an experiment: lab.kim_metrics:constant."),
        ("kim", "Give MODULE:CALLABLE, as in an experiment."),
    ],
)
def test_an_address_that_is_written_otherwise_is_told_as_it_should_be(check: Check, address: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "kim_metrics.py").write_text(METRICS)
    code, said = check(tmp_path, address)
    assert code == 2
    assert words in said


def test_a_module_of_one_file_that_imports_a_neighbour_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "sharedutil.py").write_text("def f(): ...\n")
    (tmp_path / "kim_metrics.py").write_text("from sharedutil import f\n" + METRICS)
    code, said = check(tmp_path, "kim_metrics:constant")
    assert code == 2
    assert "'kim_metrics' is a module of one file, and imports its neighbour 'sharedutil'" in said
    assert "Make it a package" in said
