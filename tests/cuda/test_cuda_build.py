"""The CUDA part compiles, keeps the arithmetic contract, and imports where there is neither driver nor library."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from kit.cuda.nvcc import NVCC
from kit.places import ROOT

from pysdk import _native

pytestmark = pytest.mark.slow

CSRC = ROOT / "csrc"


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


@pytest.fixture
def status() -> tuple[int, str]:
    """How many devices the extension sees, and what it says of them."""
    built, devices, text = _native.cuda_status()
    if not built:
        pytest.skip(text)
    return devices, text


def test_the_extension_says_what_a_device_lacks(status: tuple[int, str]) -> None:
    devices, text = status
    assert text.startswith("built with CUDA 1")
    if devices == 0:
        assert "there is no device: " in text
    expected = "there is no cuda:99" if devices else f"cuda:99 cannot be used: {text}"
    with pytest.raises(_native.CudaError, match=re.escape(expected)):
        _native.cuda_device(99)


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_the_extension_needs_no_shared_cuda_library(status: tuple[int, str]) -> None:
    needed = subprocess.run(["ldd", _native.__file__], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed
    assert "cuda" not in needed
