"""Write pysdk/_native.pyi and pysdk/_testing.pyi from the built extensions; with --check, fail if a file differs.

python tools/generate_stubs.py [--check]
"""

from __future__ import annotations

import argparse
import difflib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTENSIONS = ("_native", "_testing")


def generate(extension: str) -> str:
    """Return an extension's stub as pybind11-stubgen and ruff write it."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pybind11_stubgen", f"pysdk.{extension}", "--exit-code", "--output-dir", folder]
        subprocess.run([sys.executable, "-m", *command], check=True)
        made = Path(folder) / "pysdk" / f"{extension}.pyi"
        made.write_text(on_any_python(made.read_text()))
        options = ["--quiet", "--config", str(ROOT / "pyproject.toml"), str(made)]
        subprocess.run(
            [sys.executable, "-m", "ruff", "check", "--fix", "--select", "I,F401,RUF022", *options], check=True
        )
        subprocess.run([sys.executable, "-m", "ruff", "format", *options], check=True)
        # pybind11-stubgen knows the value, not the type of the items.
        return re.sub(r"(?m)^(\w+_COLUMNS): tuple = \([^)]*\)$", r"\1: tuple[str, ...]", made.read_text())


def on_any_python(stub: str) -> str:
    """The stub with types that Python 3.11 lacks taken from typing_extensions, whichever Python made it."""
    for new in ("collections.abc.Buffer", "types.CapsuleType"):
        stub = re.sub(rf"\b{re.escape(new)}\b", f"typing_extensions.{new.rsplit('.', 1)[1]}", stub)
    stub = re.sub(r"\bnumpy\.ndarray(?!\[)", "numpy.typing.NDArray[typing.Any]", stub)  # numpy 2.2 wants its arguments
    stub = re.sub(r"(?m)^import (types|typing_extensions)\n", "", stub)
    return re.sub(r"(?m)^import typing$", "import typing\nimport typing_extensions", stub)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    differences = ""
    for extension in EXTENSIONS:
        stub, made = ROOT / "pysdk" / f"{extension}.pyi", generate(extension)
        if check:
            old = stub.read_text().splitlines(keepends=True)
            differences += "".join(difflib.unified_diff(old, made.splitlines(keepends=True), stub.name, "as generated"))
        else:
            stub.write_text(made)
    sys.stdout.write(differences)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
