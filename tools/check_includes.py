"""Fail where a file of csrc/ includes one beside or above its rung, or where files include each other.

python tools/check_includes.py [ROOT]

The rungs are those that csrc/README.md lists.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SUFFIXES = (".h", ".cuh", ".cpp", ".cu")


def rungs(csrc: Path) -> dict[str, int]:
    """The rung of each folder."""
    found = re.findall(r"(?m)^    (\d) (\w+) ", (csrc / "README.md").read_text())
    return {folder: int(rung) for rung, folder in found}


def includes(csrc: Path) -> dict[str, list[str]]:
    """What each file includes of csrc/, by paths within it."""
    files = sorted(path for path in csrc.rglob("*") if path.suffix in SUFFIXES)
    quoted = re.compile(r'(?m)^\s*#\s*include\s+"([^"]+)"')
    return {path.relative_to(csrc).as_posix(): quoted.findall(path.read_text()) for path in files}


def misplaced(graph: dict[str, list[str]], rung: dict[str, int]) -> list[str]:
    """A line for each file without a rung, each include of no file, and each one that does not go down."""
    wrong = [f"{file}: its folder is no rung of csrc/README.md" for file in graph if file.split("/")[0] not in rung]
    for file, included in graph.items():
        here = file.split("/")[0]
        for other in included:
            there = other.split("/")[0]
            if other not in graph:
                wrong.append(f'{file} includes "{other}", which is no file of csrc/')
            elif here in rung and there in rung and here != there and rung[there] >= rung[here]:
                where = "above" if rung[there] > rung[here] else "beside"
                wrong.append(f"{file} includes {other}, but {there}/ is {where} {here}/")
    return wrong


def cycles(graph: dict[str, list[str]]) -> list[str]:
    """A line for each include that closes a cycle."""
    found: list[str] = []
    done: set[str] = set()

    def visit(file: str, path: list[str]) -> None:
        if file in path:
            found.append("files include each other: " + " -> ".join([*path[path.index(file) :], file]))
        elif file not in done:
            for other in graph.get(file, []):
                visit(other, [*path, file])
            done.add(file)

    for file in graph:
        visit(file, [])
    return found


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    graph = includes(root / "csrc")
    wrong = [*misplaced(graph, rungs(root / "csrc")), *cycles(graph)]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
