"""The CUDA part compiles, links without the shared runtime or the driver, and keeps the arithmetic contract."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NVCC = shutil.which("nvcc")

MAIN = """
#include <cstdio>
#include "cuda/device.h"
int main() {
  const pysdk::cuda::Status now = pysdk::cuda::status();
  std::printf("%d %d %s\\n", now.built, now.devices, now.text.c_str());
  try {
    pysdk::cuda::open_device(99);
  } catch (const pysdk::cuda::Error& error) {
    std::printf("%s\\n", error.what());
  }
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels for one architecture in a program of their own, with their PTX beside it."""
    if NVCC is None:
        pytest.skip("nvcc is not installed, so the CUDA part cannot be compiled")
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "main.cpp").write_text(MAIN)
    flags = ["-std=c++20", "-O3", "-fmad=false", "-arch=sm_90", "-Werror=all-warnings", "-cudart=static", "--keep"]
    command = [NVCC, *flags, "-Xcompiler=-ffp-contract=off", f"-I{ROOT / 'csrc'}", "-o", folder / "program"]
    sources = [ROOT / "csrc" / "cuda" / "cuda_device.cu", folder / "main.cpp"]
    subprocess.run([*command, *sources], check=True, cwd=folder)
    return folder


def test_runs_without_a_driver_and_says_so(built: Path) -> None:
    printed = subprocess.run([built / "program"], capture_output=True, text=True, check=True).stdout.splitlines()
    compiled, devices, text = printed[0].split(" ", 2)
    assert compiled == "1"
    assert "built with CUDA" in text
    if devices == "0":
        assert "no device" in text
        assert printed[1].startswith("cuda:99 cannot be used: built with CUDA")
    else:
        assert printed[1].startswith("there is no cuda:99")


def test_needs_no_shared_cuda_library(built: Path) -> None:
    needed = subprocess.run(["ldd", built / "program"], capture_output=True, text=True, check=True).stdout
    assert "cuda" not in needed


def test_every_operation_rounds_on_its_own(built: Path) -> None:
    ptx = (built / "cuda_device.ptx").read_text()
    assert "mul.rn.f32" in ptx
    for forbidden in (r"fma\.[a-z.]*f32", r"\.ftz", r"\.approx"):
        assert not re.search(forbidden, ptx), forbidden


def test_tensors_are_read_and_written_16_bytes_at_a_time(built: Path) -> None:
    ptx = (built / "cuda_device.ptx").read_text()
    kernel = next(part for part in ptx.split(".entry ")[1:] if "update_kernel" in part.split("(")[0])
    assert re.search(r"ld\.global\.v4\.(f|b|u)32|ld\.v4", kernel)
    assert re.search(r"st\.global\.v4\.(f|b|u)32|st\.v4", kernel)
