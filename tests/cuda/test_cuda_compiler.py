"""A CUDA compiler that cannot be used: the build goes on without it, or stops with the reason if it was asked for."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from kit.places import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("cmake") is None, reason="the package cmake is not installed"),
]


def configure(folder: Path, nvcc: str, cuda: str) -> tuple[int, str]:
    """Exit status of CMake with a script as nvcc, and what it printed, on one line."""
    import pybind11

    import cmake

    compiler = folder / "nvcc"
    compiler.write_text(f"#!/bin/sh\n{nvcc}\n")
    compiler.chmod(0o755)
    options = {"CMAKE_CUDA_COMPILER": compiler, "PYSDK_CUDA": cuda, "Python_EXECUTABLE": sys.executable}
    options["pybind11_DIR"] = pybind11.get_cmake_dir()
    command = [Path(cmake.CMAKE_BIN_DIR) / "cmake", "-S", ROOT, "-B", folder / "build"]
    command += [f"-D{name}={value}" for name, value in options.items()]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return made.returncode, re.sub(r"\s+", " ", made.stdout + made.stderr)


@pytest.mark.parametrize(
    ("nvcc", "why"),
    [
        (
            '[ "$1" = --version ] && echo "release 13.0" && exit; echo broken >&2; exit 1',
            "nothing here (",
        ),
        ('echo "release 12.4"', "is not of CUDA 13 or later"),
        ("exit 1", "is not of CUDA 13 or later"),
    ],
    ids=["broken", "old", "none"],
)
def test_unusable(tmp_path: Path, nvcc: str, why: str) -> None:
    status, said = configure(tmp_path, nvcc, "AUTO")
    assert status == 0, said
    assert re.search(r"-- CUDA: left out, \S+nvcc .*" + re.escape(why), said)
    status, said = configure(tmp_path, nvcc, "ON")
    assert status != 0
    assert re.search(r"PYSDK_CUDA is ON, but \S+nvcc .*" + re.escape(why), said)
