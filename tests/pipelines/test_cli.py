"""The command's words and exit codes, for what users get wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edm2core.config.recipes import load_recipe
from edm2core.config.settings import Recipe
from edm2core.plan.tasks import Task
from edm2core.store.local import LocalStore
from edm2core.store.runs import Run, record
from pipelines.cli import main as main_module

Edm2 = Callable[..., tuple[int, str]]


def experiment(**changes: str) -> str:
    values = {"name": "x", "recipes": "[digits/C]", "epochs": "[1]", "metrics": "[fd]", **changes}
    return "".join(f"{name}: {value}\n" for name, value in values.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1,\nb", "malformed"),
        ("", "empty"),
        ("\x00\x01", "not a text file"),
        ("name: !!python/object/apply:os.system [touch evil]\n", "tag"),
        (experiment(recipes="[digits/Q]"), "no recipe 'digits/Q'"),
        (experiment(epochs="[1000]"), "beyond the end"),
        (experiment(epochs="[]"), "at least 1"),
        (experiment(epochs="[-3]"), "greater than or equal to 1"),
        (experiment(epochs="[2, 2]"), "more than once"),
        (experiment(epochs="[soon]"), "whole number"),
        (experiment(sample="{count: 0}"), "greater than or equal to 1"),
        (experiment(sample="{count: -1}"), "greater than or equal to 1"),
        (experiment(name="../../etc/passwd"), "'name'"),
        (experiment(recipes="[cifar10/C]", metrics="[]", overrides="{data.source: no/such/file.tar.gz}"), "no/such/file.tar.gz"),
        (experiment(metrics="[kid_inception]", sample="{count: 3000}"), "Inception"),
    ],
)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_bad_input_is_exit_code_2_with_words_and_without_a_traceback(edm2: Edm2, tmp_path: Path, verb: str, text: str, words: str) -> None:
    (tmp_path / "e.yaml").write_text(text)
    code, printed = edm2(verb, "e.yaml")
    assert code == 2
    assert words in printed.replace("\n", " ")
    assert "Traceback" not in printed
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "edm2-store" / "runs").exists()


def test_a_missing_experiment_and_an_unknown_verb_are_bad_input(edm2: Edm2) -> None:
    assert edm2("run", "absent.yaml")[0] == 2
    assert edm2("rnu", "absent.yaml")[0] == 2
    assert edm2("run")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "words", "do_next"),
    [
        (["recpies"], "no command 'recpies'. Did you mean 'recipes'?", "`edm2 --help`"),
        (["run"], "Missing argument 'EXPERIMENT'", "`edm2 run --help`"),
        (["run", "e.yaml", "--jobs", "0"], "0 is not in the range", "`edm2 run --help`"),
        (["serve", "--store", "s"], "STORE stands without --store: edm2 serve STORE.", "`edm2 serve --help`"),
        (["runs", "mr"], "No such command 'mr'", "`edm2 runs --help`"),
        (["import", "fx", "absent.pth", "--recipe", "cifar10/C"], "There is no file absent.pth", "model_<e>.pth"),
        (["import", "fx", ".", "--recipe", "cifar10/C"], ". is a folder, not a file", "model_<e>.pth"),
    ],
)
def test_a_command_that_makes_no_sense_is_told_as_any_bad_input(edm2: Edm2, arguments: list[str], words: str, do_next: str) -> None:
    code, printed = edm2(*arguments)
    assert code == 2
    what, *_, last = printed.splitlines()
    assert what.startswith("edm2: ")
    assert words in what
    assert last.startswith("  what to do: ")
    assert do_next in last


def test_debug_shows_the_traceback(edm2: Edm2) -> None:
    assert "Traceback" in edm2("--debug", "run", "absent.yaml")[1]


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys/kernel").exists(), reason="needs a file system that refuses writing")
def test_a_store_that_cannot_be_written_is_named(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    code, printed = edm2("run", "e.yaml", "--store", "/proc/sys/kernel/store")
    assert code in (1, 2)
    assert "/proc/sys/kernel/store" in printed
    assert "Traceback" not in printed


def test_plan_lists_tasks_that_the_stages_can_read(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    code, printed = edm2("plan", "e.yaml")
    assert code == 0
    assert "C · seed 0 · train to epoch 1" in printed
    tasks = [json.loads(line) for line in edm2("plan", "e.yaml", "--json")[1].splitlines()]
    assert {"stage", "version", "settings", "inputs", "key", "title"} <= tasks[0].keys()


def test_a_recipe_is_shown_with_a_word_on_each_setting_and_reads_back_as_it_was(edm2: Edm2) -> None:
    shown = edm2("recipes", "show", "cifar10/E")[1]
    assert "  lr: 0.02  # Learning rate after the warm-up.\n" in shown
    assert Recipe.model_validate(yaml.safe_load(shown)) == load_recipe("cifar10/E")


def test_recipes_are_listed_shown_and_compared(edm2: Edm2) -> None:
    assert "tinyimagenet/G" in edm2("recipes")[1]
    assert "t_ref_epochs: 400.0" in edm2("recipes", "show", "cifar10/E")[1]
    differences = edm2("recipes", "diff", "cifar10/C", "cifar10/E")[1]
    assert "network.weights" in differences
    assert "network.dropout" not in differences
    assert "have the same settings" in edm2("recipes", "diff", "cifar10/C", "cifar10/C")[1]


def test_a_setting_of_own_code_is_shown_once_where_a_built_in_choice_has_one_of_that_name(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "kim_solver.py").write_text("def still(denoise, x, sigmas, noise, *, eta: float = 0.5):\n    return x\n")
    (tmp_path / "mine.yaml").write_text("extends: digits/G\nsample: {solver: 'kim_solver:still'}\n")
    shown = edm2("recipes", "show", "mine.yaml")[1]
    assert [line for line in shown.splitlines() if " eta:" in line] == ["  eta: 0.5  # A setting of own code."]


def test_recipes_with_own_code_are_shown_and_compared_with_its_settings(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "kim_loss.py").write_text("def flat(sigma, sigma_data, *, height: float = 1.0):\n    return sigma * 0 + height\n")
    for name, height in (("one", ""), ("two", ", height: 2")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: digits/G\ndiffusion: {{weighting: kim_loss:flat{height}}}\n")
    shown = edm2("recipes", "show", "two.yaml")[1]
    assert "  height: 2.0  # A setting of own code.\n" in shown
    assert "own:" not in shown
    (tmp_path / "shown.yaml").write_text(shown)
    code, printed = edm2("recipes", "diff", "shown.yaml", "two.yaml")
    assert (code, "have the same settings" in printed) == (0, True), printed
    printed = edm2("recipes", "diff", "one.yaml", "two.yaml")[1]
    assert "1 → 2  (diffusion.height)" in printed


def test_a_difference_of_recipes_is_said_in_words(edm2: Edm2) -> None:
    code, printed = edm2("recipes", "diff", "cifar10/G", "paper/cifar10/G")
    assert code == 0
    for line in (
        "attention heads: one, with all channels → of 64 channels  (network.attention_head_channels)",
        "the two blocks in the middle: of the encoder's kind → of the decoder's kind  (network.middle)",
        "fixed EMA's beta: 0.9993 → no such average  (training.ema_beta)",
        "denoised images clipped while sampling: yes → no  (sample.clip)",
    ):
        assert f"  {line}\n" in printed


RUN_VERBS = (("status",), ("logs",), ("report",), ("runs", "rm"), ("ema", "--sigma-rel", "0.1"))
STORE_VERBS = (*(("runs", "--store"), ("gc", "--store")), *((verb,) for verb in ("serve", "verify", "tensorboard")))


def begun(store: Path, *runs: str) -> None:
    for run in runs:
        (store / "runs" / run).mkdir(parents=True)
        (store / "runs" / run / "plan.json").write_text(f'{{"name": "{run}", "tasks": []}}')


@pytest.mark.parametrize("verb", RUN_VERBS, ids=" ".join)
def test_a_run_that_is_not_there_is_named_with_those_that_are(edm2: Edm2, tmp_path: Path, verb: tuple[str, ...]) -> None:
    begun(tmp_path / "edm2-store", "digits-ceg-12ab34", "sweep-56cd78")
    for mistyped, near in {
        "digits-ceg": "digits-ceg-12ab34",
        "digits-cge-12ab34": "digits-ceg-12ab34",
        "edm2-store/runs/swep": "sweep-56cd78",
    }.items():
        code, printed = edm2(*verb, mistyped)
        assert code == 2
        assert f"There is no run {mistyped.rpartition('/')[2]} in" in printed
        assert f"Did you mean {near}? Runs there: digits-ceg-12ab34, sweep-56cd78." in printed
    assert "Did you mean" not in edm2(*verb, "ghost")[1]


@pytest.mark.parametrize(
    "verb", [*((*verb, "ghost", "--store") for verb in RUN_VERBS), *STORE_VERBS, ("reproduce", "sample/0", "--store")], ids=" ".join
)
def test_where_there_is_no_store_that_is_said(edm2: Edm2, tmp_path: Path, verb: tuple[str, ...]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pictures" / "2026").mkdir(parents=True)
    begun(tmp_path / "work" / "edm2-store", "there")
    for store, words in {"absent": "There is no store here", "empty": "There is no store here", "pictures": "This is not a store"}.items():
        code, printed = edm2(*verb, store)
        assert code == 2
        assert words in printed
        assert f"where: {tmp_path / store}\n" in printed
    assert f"Did you mean {tmp_path}/work/edm2-store?" in edm2(*verb, "work")[1]
    assert not (tmp_path / "absent").exists()


def test_a_runs_address_serves_wherever_its_name_does(edm2: Edm2, tmp_path: Path) -> None:
    begun(tmp_path / "store", "there")
    assert edm2("status", "store/runs/there") == (0, "0 of 0 tasks are done.\n")
    assert edm2("logs", "store/runs/there/") == (0, "")
    assert edm2("runs", "rm", "store/runs/there")[0] == 0
    assert not list((tmp_path / "store" / "runs").glob("*"))


def test_status_says_that_a_run_has_stopped(edm2: Edm2, tmp_path: Path) -> None:
    from edm2core.store.local import LocalStore
    from tests.edm2core.store.test_summary import begin

    run, _ = begin(LocalStore(tmp_path / "edm2-store"), tmp_path, "one")
    assert "has stopped" not in edm2("status", run.id)[1]  # somebody may be at work
    run.end()
    assert "The run has stopped: nothing works on it any more." in edm2("status", run.id)[1]


def test_a_bundled_experiment_is_named_without_its_path(edm2: Edm2, tmp_path: Path) -> None:
    assert "G · seed 0" in edm2("plan", "demo")[1]
    code, printed = edm2("plan", "dmo")
    assert code == 2
    assert "There is no file dmo here. There is no bundled experiment 'dmo'. Did you mean 'demo'?" in printed
    (tmp_path / "demo").write_text(experiment())
    assert "G · seed 0" not in edm2("plan", "demo")[1]  # a file of that name comes first


def test_a_plan_of_another_version_is_named_wherever_it_is_read(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    tasks = [json.loads(line) for line in edm2("plan", "e.yaml", "--json")[1].splitlines()]
    for task in tasks:
        task["settings"]["of_tomorrow"] = 1
        task["settings"].get("training", {})["of_tomorrow"] = 1
    folder = tmp_path / "edm2-store" / "runs" / "later"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"name": "later", "tasks": tasks}))
    for verb in (["report", "later"], ["status", "later"], ["logs", "later"], ["verify", "edm2-store"]):
        code, printed = edm2(*verb)
        assert "Traceback" not in printed
        assert "should not have happened" not in printed
        assert code == 0 or "another version" in printed
    assert "later" in edm2("runs")[1]


def test_a_comparison_needs_different_runs_that_are_there(edm2: Edm2, tmp_path: Path) -> None:
    from edm2core.store.local import LocalStore
    from tests.edm2core.store.test_summary import begin

    runs = [begin(LocalStore(tmp_path / name), tmp_path, "one")[0] for name in ("a", "b")]
    one, other = (f"{name}/runs/{run.id}" for name, run in zip("ab", runs, strict=True))
    for arguments, words in {
        (one, one): "cannot be compared with itself",
        (one, "b/runs/ghost"): "no run ghost",
        (one, "c/runs/ghost"): "no store here",
        (one, "--out", "x"): "goes into the run's folder",
    }.items():
        code, printed = edm2("report", *arguments)
        assert code == 2
        assert words in printed
    code, printed = edm2("report", one, f"{other}/report.html")
    assert code == 0, printed
    assert "tasks have no result" in printed
    assert (tmp_path / "comparison" / "comparison.html").exists()


def test_help_names_every_verb_once_in_its_group(edm2: Edm2) -> None:
    code, printed = edm2("--help")
    assert code == 0
    verbs = {path.stem for path in Path(main_module.__file__).parent.glob("*.py")} - {"__init__", "main", "options", "completion"}
    assert verbs == set(main_module.VERBS)
    for verb in verbs:
        assert sum(line.startswith(f"  {verb} ") for line in printed.splitlines()) == 1
        code, own = edm2(verb, "--help")
        assert code == 0
        assert "..." not in own.partition("Commands:")[2]  # no line of a sub-command is cut
        assert "TEXT" not in [word for line in own.splitlines() if "--store" in line or "--cluster" in line for word in line.split()]


def test_recipes_are_listed_whole_however_narrow_the_terminal(edm2: Edm2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    printed = edm2("recipes")[1]
    assert "…" not in printed
    assert "magnitude-preserving" in printed.splitlines()[0]


def test_a_planned_task_stays_in_its_line_where_grep_looks_for_it(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment(sweep="{training.lr: [1e-3], network.dropout: [0.1], training.warmup_epochs: [1, 2]}"))
    printed = edm2("plan", "e.yaml")[1]
    assert (
        len([line for line in printed.splitlines() if "train to epoch 1" in line and "warmup_epochs=" in line and "snapshot/" in line]) == 2
    )


def test_a_terminal_without_the_letters_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    command = [sys.executable, "-m", "pipelines.cli.main", "plan", "e.yaml"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "train to epoch 1" in ran.stdout


def test_the_store_of_verify_is_the_one_that_run_fills(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "edm2-store" / "runs").mkdir(parents=True)
    assert edm2("verify") == (0, "0 of 0 results are as recorded.\n")


def test_leases_that_can_go_are_one_line_of_gc(edm2: Edm2, tmp_path: Path) -> None:
    store = tmp_path / "edm2-store"
    (store / "runs").mkdir(parents=True)
    for path in ("leases/sample/a/1.json", "leases/sample/b/1.json", "results/sample/c/x/grid.png"):
        (store / path).parent.mkdir(parents=True)
        (store / path).write_bytes(b"x" * 500)
        os.utime(store / path, (0, 0))  # what has no age stays
    code, printed = edm2("gc", "--days", "0")
    assert code == 0
    assert [line.split("  ")[-2].strip() for line in printed.splitlines()[:-1]] == ["results/sample/c/", "2 of leases/"]
    assert printed.splitlines()[-1] == "1.5 kB could go; `edm2 gc --apply` removes it."
    assert "1.5 kB removed" in edm2("gc", "--days", "0", "--apply")[1]
    assert [path.name for path in store.glob("leases/*")] == ["gc"]  # its own


def test_logs_of_a_reused_task_are_those_of_the_run_that_did_it_and_an_empty_answer_is_none(edm2: Edm2, tmp_path: Path) -> None:
    store, task = LocalStore(tmp_path / "store"), Task("metrics", 1, {}, {}, "k", "C · FD at epoch 1")
    for name in ("first", "second"):
        record(Run(name, store), name, "", [task], {})
    code, printed = edm2("logs", "second", "--store", "store", "--task", "FD")
    assert code == 2
    assert "Nothing is kept of what “C · FD at epoch 1” printed: not begun yet." in printed
    store.write("runs/first/logs/metrics-k/0.log", b"forty-two\n")
    code, printed = edm2("logs", "second", "--store", "store", "--task", "FD")
    assert code == 0
    assert "C · FD at epoch 1 is reused; what it printed in first:\n" in printed
    assert "[C · FD at epoch 1] forty-two\n" in printed
    code, printed = edm2("logs", "second", "--store", "store", "--task", "KID")
    assert code == 2
    assert "No task of second has KID in its title or key." in printed


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_wrong_setting_of_the_command_is_told_as_one_of_the_file(edm2: Edm2, tmp_path: Path, verb: str) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    code, printed = edm2(verb, "e.yaml", "--set", "training.lr=fast")
    assert code == 2
    assert "'training.lr' must be a number, such as 0.5 or 1e-3; it is 'fast'." in printed
    assert "  where: --set training.lr=fast\n" in printed


def test_a_setting_of_the_command_plans_other_tasks(edm2: Edm2, tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(experiment())
    keys = [{json.loads(line)["key"] for line in edm2("plan", "e.yaml", "--json", *more)[1].splitlines()} for more in ((), SLOWER)]
    assert keys[0] - keys[1]
    assert "train to epoch 2" in edm2("plan", "e.yaml", *SLOWER)[1]


SLOWER = ("--set", "training.lr=1e-3", "--set", "epochs=[2]")


def test_the_environment_names_the_store_for_every_verb(edm2: Edm2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path / "kept", "digits-12ab34")
    monkeypatch.setenv("EDM2_STORE", "kept")
    assert "digits-12ab34" in edm2("runs")[1]
    assert edm2("status", "digits-12ab34")[0] == 0
    assert "0 of 0 results" in edm2("verify")[1]
    assert "There is no store here" in edm2("runs", "--store", "elsewhere")[1]
    assert "env var: EDM2_STORE" in edm2("run", "--help")[1]
