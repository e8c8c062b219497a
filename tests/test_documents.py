"""What README and docs name is there: files, links, headings, and what their Python imports."""

import ast
import importlib
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "bench" / "RESULTS.md",
]
FOLDERS = "bench|components|docker|docs|edm2core|experiments|k8s|pipelines|tests"
MADE = {"k8s/images.json", "k8s/profiles/mine.yaml"}  # by commands and by the reader

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pages
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {path.rstrip("/.,:") for path in re.findall(rf"`((?:{FOLDERS})/[\w./*-]*)`", prose(page))}
    assert sorted(path for path in named - MADE if not any(REPOSITORY.glob(path))) == []


@pages
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and file.suffix == ".md" and heading not in anchors(file)):
            broken.append(target)
    assert broken == []


@pages
def test_what_python_in_it_imports_is_there(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", prose(page), re.MULTILINE | re.DOTALL):
        for statement in ast.walk(ast.parse(block)):
            if isinstance(statement, ast.ImportFrom) and statement.module:
                module = importlib.import_module(statement.module)
                for alias in statement.names:
                    if not hasattr(module, alias.name):
                        importlib.import_module(f"{statement.module}.{alias.name}")
