"""Checks that imports go down the rooms, as [tool.importlinter] in pyproject.toml lists them, and that rooms are small.

python tools/check_rooms.py
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES = 15
"""At one level of a folder, but for the root, where tools look for files of their own."""


def crowded(paths: list[str]) -> list[str]:
    """A sentence for each folder that has more files than `MOST_FILES`."""
    counts = Counter(str(Path(path).parent) for path in paths if "/" in path)
    return [
        f"{folder}/ has {count} files, expected at most {MOST_FILES}: give some of them a folder"
        for folder, count in sorted(counts.items())
        if count > MOST_FILES
    ]


def imports() -> int:
    """Exit code of import-linter."""
    from importlinter.cli import lint_imports

    # the source tree, and not what an editable installation adds to the package's path
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in type(finder).__module__]
    sys.path.insert(0, str(ROOT))
    return lint_imports(str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)


if __name__ == "__main__":
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    sentences = crowded(listed)
    print(*sentences, sep="\n", end="\n" if sentences else "")
    sys.exit(imports() or bool(sentences))
