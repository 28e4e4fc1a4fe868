"""The pages that a reader of the repository sees, and the code that they show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kit.places import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "models/*/*.md", "benchmarks/**/*.md", "tests/data/*.md", ".github/**/*.md")
    for page in ROOT.glob(pattern)
)


def code_lines(page: Path) -> Iterator[str]:
    """Lines of code blocks, fenced or indented by four, without the indent; lines that end with a backslash joined."""
    fenced = False
    text = page.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced:
            yield line
        elif line.startswith("    "):
            yield line[4:]


def shown(pattern: str) -> set[str]:
    """What a pattern's first group finds in any page, in code or in text."""
    return {found for page in PAGES for found in re.findall(pattern, page.read_text())}
