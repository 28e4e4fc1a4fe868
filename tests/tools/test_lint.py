"""`make lint` sees every line of Python, and says which import goes upwards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kit.places import ROOT

from tools.check_rooms import MOST_FILES, crowded

CHECKED = ("pysdk", "export", "benchmarks", "tools")


def files(*folders: str) -> set[Path]:
    """The Python files of these folders that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a checkout of git")
    found = {ROOT / line for line in done.stdout.splitlines() if line.endswith(".py")}
    return {path.resolve() for path in found if path.exists()}


def test_the_type_checker_is_given_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from mypy.main import process_options

    monkeypatch.chdir(ROOT)
    sources, options = process_options([])
    given = {Path(source.path).resolve() for source in sources if source.path}
    assert files(*CHECKED) - given == set()
    assert options.disallow_untyped_defs
    assert options.warn_return_any
    assert {source.module for source in sources} >= {"pysdk.sampler", "pysdk.export.build", "benchmarks.report"}


def test_ruff_is_given_every_file_and_knows_the_package_by_both_its_names() -> None:
    ruff = [sys.executable, "-m", "ruff"]
    code = next(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("PYTHON_CODE"))
    listed = [*ruff, "check", "--show-files", *code.partition(":=")[2].split()]
    shown = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert files(*CHECKED, "tests") - {Path(line).resolve() for line in shown} == set()
    unsorted = "from pysdk.errors import ExportError\nimport onnx\n\nprint(ExportError, onnx)\n"
    stdin = [*ruff, "check", "--select", "I", "--stdin-filename", "export/planted.py", "-"]
    planted = subprocess.run(stdin, cwd=ROOT, input=unsorted, capture_output=True, text=True, check=False)
    assert planted.returncode == 1
    assert "I001" in planted.stdout


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pysdk", tmp_path / "pysdk", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "check_rooms.py", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    planted = {
        "plan/container.py": "from pysdk.engines import registry",
        "diffusion/sigmas.py": "def sigmas():\n    from pysdk.runtime import cpu",
        "request/guidance.py": "import torch",
        "export/lowering/surgery.py": "import pysdk.export.importers",
    }
    for name, line in planted.items():
        with (tmp_path / "pysdk" / name).open("a") as file:
            file.write(f"\n{line}\n")
    program = "import sys; sys.path.insert(0, 'tools'); import check_rooms; sys.exit(check_rooms.imports())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 1
    for found in (
        "pysdk.plan.container -> pysdk.engines.registry",
        "pysdk.diffusion.sigmas -> pysdk.runtime.cpu",
        "pysdk.request.guidance -> torch",
        "pysdk.export.lowering.surgery -> pysdk.export.importers",
    ):
        assert found in done.stdout, done.stdout


def test_a_folder_of_sixteen_files_is_crowded() -> None:
    paths = [f"pysdk/a/{index}.py" for index in range(MOST_FILES + 1)]
    assert crowded([*paths, "pysdk/b.py"]) == [
        "pysdk/a/ has 16 files, expected at most 15: give some of them a folder",
    ]
    assert crowded([*paths[1:], "pysdk/b.py"]) == []


@pytest.mark.parametrize(
    ("file", "include", "sentence"),
    [
        ("noise/philox.h", "chain/step.h", "noise/philox.h includes chain/step.h, but chain/ is above noise/"),
        ("likelihood/bound.h", "cuda/device.h", "cuda/ is beside likelihood/"),
        ("noise/float32.h", "noise/normal.h", "noise/float32.h -> noise/normal.h -> noise/float32.h"),
        ("noise/normal.h", "noise/gone.h", 'noise/normal.h includes "noise/gone.h", which is no file of csrc/'),
    ],
)
def test_an_include_that_does_not_go_down_is_found(tmp_path: Path, file: str, include: str, sentence: str) -> None:
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    command = [sys.executable, ROOT / "tools" / "check_includes.py", tmp_path]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with (tmp_path / "csrc" / file).open("a") as planted:
        planted.write(f'#include "{include}"\n')
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert sentence in done.stderr
