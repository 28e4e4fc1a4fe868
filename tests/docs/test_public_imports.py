"""Every import, module, command and make target that README and docs show is there."""

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit.pages import PAGES, code_lines, shown
from kit.places import ROOT

NEED_TORCH = ("pysdk.training", "pysdk.export")


def imports() -> list[tuple[str, str]]:
    """Module and name, of every `from pysdk... import name` in a code block."""
    found = set()
    for page in PAGES:
        for line in code_lines(page):
            statement = re.match(r"from (?:pysdk|benchmarks)[\w.]* import [\w, ]+", line.strip())
            if statement:
                tree = ast.parse(statement[0]).body[0]
                assert isinstance(tree, ast.ImportFrom)
                assert tree.module
                found |= {(tree.module, name.name) for name in tree.names}
    return sorted(found)


def modules() -> list[str]:
    """Of every `python -m pysdk...`."""
    return sorted(shown(r"python3? -m ((?:pysdk|benchmarks)[\w.]*\w)"))


def dotted_names() -> list[str]:
    """`pysdk.machine.interrupts.noted_interrupts` and the like, in backquotes."""
    return sorted(shown(r"`(pysdk(?:\.[a-zA-Z]\w*)+)`"))


def commands() -> dict[str, set[str]]:
    """Options by command, of every `pysdk COMMAND ...` in a code block."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for line in code_lines(page):
            match = re.match(r"pysdk ([a-z-]+)\b([^#|]*)", line.strip())
            if match:
                found.setdefault(match[1], set()).update(re.findall(r"(?<!\S)--?[a-zA-Z][\w-]*", match[2]))
    return found


def importers_words() -> set[str]:
    files = (ROOT / "export/importers").rglob("*.py")
    return {word for path in files for word in re.findall(r"\w+", path.read_text())}


def skip_without_torch(module: str) -> None:
    if module.startswith(NEED_TORCH):
        pytest.importorskip("torch")


@pytest.mark.parametrize(("module", "name"), imports())
def test_an_import(module: str, name: str) -> None:
    skip_without_torch(module)
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", modules())
def test_a_module_that_is_run(module: str) -> None:
    skip_without_torch(module)
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    assert "__name__ ==" in Path(spec.origin).read_text() or spec.name.endswith(".__main__")


@pytest.mark.parametrize("dotted", dotted_names())
def test_a_dotted_name(dotted: str) -> None:
    skip_without_torch(dotted)
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            value = getattr(value, name)
        return


@pytest.mark.parametrize(("command", "options"), sorted(commands().items()))
def test_a_command_and_its_options(command: str, options: set[str]) -> None:
    asked = [sys.executable, "-m", "pysdk.cli", command, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    known = done.stdout
    if command == "build":  # whose other options are those of importers
        known += "".join(f"--{name}\n" for name in importers_words())
    assert not [option for option in options if not re.search(rf"{option}\b", known)]


def test_make_targets() -> None:
    """Those that pages name, and every step of the workflow that is a command."""
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for line in re.findall(r"^([\w.-][\w. -]*):", makefile, re.MULTILINE) for name in line.split()}
    code = {line.strip() for page in PAGES for line in code_lines(page)}
    named = shown(r"`make ([a-z-]+)") | {match[1] for line in code if (match := re.match(r"make ([a-z-]+)", line))}
    steps = re.findall(r"- run: (.*)", (ROOT / ".github/workflows/ci.yml").read_text())
    assert steps
    assert all(re.fullmatch(r"make [a-z-]+", step) for step in steps)
    assert named | {step.split()[1] for step in steps} <= targets
