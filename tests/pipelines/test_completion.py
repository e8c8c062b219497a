"""What a shell completes."""

import tarfile
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from pipelines.cli.main import VERBS, cli

ARCHIVE = Path(__file__).parents[1] / "data" / "earlier_store.tar.xz"


def completed(*words: str) -> list[str]:
    """The values that the last word is completed to."""
    *before, incomplete = words
    completion = ShellComplete(cli, {}, "edm2", "_EDM2_COMPLETE")
    return [item.value for item in completion.get_completions(before, incomplete) if item.type == "plain"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDM2_STORE", raising=False)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "kept", filter="data")
    return tmp_path / "kept" / "store"


def test_verbs_options_recipes_and_experiments() -> None:
    assert completed("") == list(VERBS)
    assert completed("re") == [verb for verb in VERBS if verb.startswith("re")]
    assert "--set" in completed("run", "demo", "--s")
    assert completed("recipes", "show", "digits/") == ["digits/C", "digits/E", "digits/G"]
    assert completed("import", "fx", "--recipe", "cifar100/") == ["cifar100/C", "cifar100/E", "cifar100/G"]
    assert completed("run", "dem") == ["demo"]


def test_runs_of_the_store_that_the_line_or_the_environment_names(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("status", "") == []
    assert completed("status", "--store", str(store), "e") == ["earlier-3ff39a"]
    assert completed("sample", "--store", str(store), "earlier")[0] == "earlier-3ff39a:digits/G dropout=0"
    monkeypatch.setenv("EDM2_STORE", str(store))
    assert completed("report", "") == ["earlier-3ff39a"]


def test_a_mistyped_verb_is_no_error_and_no_store_is_made(store: Path) -> None:
    assert completed("rnu", "x") == []
    assert completed("status", "--store", "absent", "") == []
    assert not Path("absent").exists()
