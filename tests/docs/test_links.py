"""Pages link to what is there, and the code names pages that are there."""

import re
from pathlib import Path

import pytest
from kit.pages import PAGES
from kit.places import ROOT

CODE = [
    *(ROOT / "Makefile", ROOT / "CMakeLists.txt", ROOT / "pyproject.toml"),
    *(
        path
        for folder in ("pysdk", "export", "csrc", "tools", "benchmarks", "cmake")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".h", ".cpp", ".cu", ".cuh", ".cmake", ".sh"}
    ),
]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_pages_that_code_names() -> None:
    named = {
        (path.relative_to(ROOT), name)
        for path in CODE
        for name in re.findall(r"\b(docs/[\w./-]*\w)", path.read_text())
        if not (ROOT / name).exists()
    }
    assert not named


def test_files_and_folders_that_pages_name() -> None:
    """In backquotes, files by their whole path or by its end. NAME stands for a file that the reader makes."""
    files = [str(path.relative_to(ROOT)) for path in [*CODE, *(ROOT / "tests").rglob("*.*")]]
    theirs = {"image_sample.py"}  # of other projects
    whole, end = r"`((?:pysdk|export|csrc|tests|docs)/[\w./-]*)`", r"`([\w./-]+\.(?:py|h|cpp|cu|cuh|cmake|sh))`"
    missing = set()
    for page in PAGES:
        if "results" in page.parts or page.name == "CHANGELOG.md":
            continue
        text = page.read_text()
        missing |= {(page.name, name) for name in re.findall(whole, text) if not (ROOT / name).exists()}
        for name in set(re.findall(end, text)) - theirs:
            if not any(f"/{path}".endswith(f"/{name}") for path in files):
                missing.add((page.name, name))
    assert not {(page, name) for page, name in missing if "NAME" not in name}
