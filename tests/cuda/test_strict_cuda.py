"""The device's real calls (csrc/cuda/cuda_device.cu) over a CUDA runtime for tests that is strict about its rules.

The runtime, strict_cuda/runtime.h, is our reading of CUDA's documentation: no driver and no GPU is involved. The cases
are C++, a program each, as what would be undefined on a device ends it.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from kit.cuda.nvcc import FLAGS, NVCC
from kit.places import ROOT

pytestmark = pytest.mark.slow

CSRC = ROOT / "csrc"
STRICT = Path(__file__).parent / "strict_cuda"
CASES = sorted(
    name for file in STRICT.glob("*_cases.cpp") for name in re.findall(r"^CASE\((\w+)\)", file.read_text(), re.M)
)

# each compiled as one: their headers take longer than they do
RUNTIME = [STRICT / f"{name}.cpp" for name in ("devices", "memory", "streams", "graphs", "launches", "kernels")]
UNITS = {
    "runtime": RUNTIME,
    "cases": sorted(set(STRICT.glob("*.cpp")) - set(RUNTIME)),
    "chain": [
        *(CSRC / "cuda" / f"{name}.cpp" for name in ("cuda_begin", "cuda_chain", "cuda_results", "row_graph")),
        *(CSRC / "testing" / f"{name}.cpp" for name in ("simulated_device", "simulated_graphs")),
        CSRC / "chain" / "chain_shape.cpp",
        CSRC / "chain" / "request.cpp",
        CSRC / "chain" / "step_table.cpp",
    ],
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if NVCC is None:
        pytest.skip("nvcc 13 is not installed, so the CUDA part cannot be compiled")
    folder = tmp_path_factory.mktemp("strict_cuda")
    for unit, files in UNITS.items():
        (folder / f"{unit}.cpp").write_text("".join(f'#include "{file}"\n' for file in files))
    flags = ["-std=c++20", "-O0", "-fmad=false", "-arch=sm_90", "-cudart=none", f"-I{CSRC}", f"-I{STRICT}", *FLAGS]
    sources = [
        *(folder / f"{unit}.cpp" for unit in UNITS),
        *(CSRC / "cuda" / f"{name}.cu" for name in ("cuda_device", "cuda_status")),
    ]
    host = "-Xcompiler=-ffp-contract=off,-fsanitize=address,-fno-omit-frame-pointer"
    subprocess.run([NVCC, *flags, host, "-o", folder / "program", *sources, "-lpthread"], check=True)
    return folder / "program"


def test_the_program_has_all_cases(program: Path) -> None:
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout.split() == CASES


@pytest.mark.parametrize("case", CASES)
def test_strict_cuda(program: Path, case: str) -> None:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1"}
    done = subprocess.run([program, case], check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-5000:]
