"""The kernels compile, keep the arithmetic contract, and use the memory bus as they should."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from nvcc import NVCC

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The kernels as PTX for one architecture."""
    if NVCC is None:
        pytest.skip("nvcc is not installed, so the CUDA part cannot be compiled")
    path = tmp_path_factory.mktemp("cuda") / "kernels.ptx"
    flags = ["-std=c++20", "-O3", "-fmad=false", "-arch=sm_90", "-Werror=all-warnings", "-Xcompiler=-ffp-contract=off"]
    subprocess.run([NVCC, *flags, f"-I{CSRC}", "-ptx", "-o", path, CSRC / "cuda" / "cuda_device.cu"], check=True)
    return path.read_text()


def test_every_operation_rounds_on_its_own(ptx: str) -> None:
    assert "mul.rn.f32" in ptx
    for forbidden in (r"fma\.[a-z.]*f32", r"\.ftz", r"\.approx"):
        assert not re.search(forbidden, ptx), forbidden


def test_tensors_are_read_and_written_16_bytes_at_a_time(ptx: str) -> None:
    kernel = next(part for part in ptx.split(".entry ")[1:] if "update_kernel" in part.split("(")[0])
    assert re.search(r"ld\.global\.v4\.(f|b|u)32|ld\.v4", kernel)
    assert re.search(r"st\.global\.v4\.(f|b|u)32|st\.v4", kernel)
