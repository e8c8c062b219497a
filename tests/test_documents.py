"""What the documents name is there: files, links, headings, imports. Their commands run, and generated pages are in step with the code."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from docs.generate import FOLDER
from docs.generate import pages as generated
from edm2core.plan.experiment import load_experiment

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    *sorted(REPOSITORY.glob("*.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "bench" / "RESULTS.md",
]
FOLDERS = "bench|components|docker|docs|edm2core|experiments|k8s|pipelines|tests"
MADE = {"k8s/images.json", "k8s/profiles/mine.yaml"}  # by commands and by the reader
SHELL = ("bash", "sh")
NOT_RUN = {"no-run": 9, "needs-cluster": 9}  # how many command blocks cannot run in a test, by the word behind ```bash

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


class Block(NamedTuple):
    """A fenced block: the language, the words behind it, and the text."""

    language: str
    words: frozenset[str]
    text: str


def prose(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """A page's fenced blocks, those in lists too."""
    found = re.findall(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", prose(page), re.MULTILINE | re.DOTALL)
    return [
        Block(language, frozenset(words.split()), re.sub(f"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, words, text in found
    ]


def write_files(page: Path, folder: Path) -> None:
    """The page's files: blocks of YAML or Python that begin with a file's name in a comment."""
    for block in blocks(page):
        if block.language in ("yaml", "python") and (named := re.match(r"# ([\w/-]+\.(?:yaml|py))\n", block.text)):
            (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / named[1]).write_text(block.text, encoding="utf-8")


def targets(page: Path) -> list[str]:
    """What a page's links lead to within the repository."""
    return re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {path.rstrip("/.,:") for path in re.findall(rf"`((?:{FOLDERS})/[\w./*-]*)`", prose(page))}
    assert sorted(path for path in named - MADE if not any(REPOSITORY.glob(path))) == []


@every_page
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for target in targets(page):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and file.suffix == ".md" and heading not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_the_page_of_own_code_shows_the_examples_that_tests_run() -> None:
    shown = prose(REPOSITORY / "docs/how-to/own-code.md")
    examples = sorted((REPOSITORY / "tests/data/my_science").glob("[a-z]*.py"))
    assert len(examples) == 7
    for example in examples:
        assert f"# my_{example.name}\n{example.read_text(encoding='utf-8')}" in shown, f"copy {example} into the page"


def test_a_page_is_reached_from_another() -> None:
    reached = {(page.parent / target.partition("#")[0]).resolve() for page in PAGES for target in targets(page)}
    assert [page.name for page in PAGES if page not in reached and page.parent != REPOSITORY] == []


@every_page
def test_what_python_in_it_imports_is_there(page: Path) -> None:
    for block in blocks(page):
        for statement in ast.walk(ast.parse(block.text)) if block.language == "python" and "no-run" not in block.words else []:
            if isinstance(statement, ast.ImportFrom) and statement.module:
                module = importlib.import_module(statement.module)
                for alias in statement.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{statement.module}.{alias.name}")


@every_page
def test_every_whole_experiment_on_it_can_be_read(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    for block in blocks(page):
        if block.language == "yaml" and all(re.search(rf"^{setting}: ", block.text, re.MULTILINE) for setting in ("name", "recipes")):
            (tmp_path / "experiment.yaml").write_text(block.text, encoding="utf-8")
            load_experiment(tmp_path / "experiment.yaml")


@pytest.mark.parametrize("name", sorted(generated()))
def test_a_generated_page_is_in_step_with_the_code(name: str) -> None:
    file = FOLDER / name
    written = prose(file) if file.exists() else ""
    assert written == generated()[name], f"docs/reference/{name} is behind the code: run `make docs`"


def test_the_command_blocks_that_cannot_run_say_so_and_are_counted() -> None:
    commands = [block for page in PAGES for block in blocks(page) if block.language in SHELL]
    assert {word for block in commands for word in block.words} <= {*NOT_RUN, "slow"}
    assert {word: sum(word in block.words for block in commands) for word in NOT_RUN} == NOT_RUN


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language in SHELL and not block.words & {*NOT_RUN}]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow, pytest.mark.timeout(1500)] if slow else [], id=str(page.relative_to(REPOSITORY)))
        for page in PAGES
        for slow in [any("slow" in block.words for block in runnable(page))]
        if runnable(page)
    ],
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    """In their order, in one folder with the page's files."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "EDM2_STORE": "edm2-store"}
    write_files(page, tmp_path)
    for block in runnable(page):
        command = ["bash", "-euc", block.text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
