"""The wheel: what is in it, what it asks for, and that it works where nothing else is installed.

Where there is a CUDA compiler it has the CUDA part, which imports and says what is missing without a driver.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tests" / "cuda"))
from nvcc import NVCC  # noqa: E402


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built like any user's but with the tools that are here."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", folder, ROOT]
    # one architecture of those that wheels are for: each adds a compilation of the kernels
    environment = {**os.environ, "PYSDK_CUDA": "OFF" if NVCC is None else "ON", "CUDAARCHS": "90"}
    subprocess.run([*command, "-C", f"build-dir={folder / 'build'}"], check=True, env=environment)
    [path] = folder.glob("*.whl")
    return path


def test_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pysdk"}
    for expected in (
        "pysdk/py.typed",
        "pysdk/_native.pyi",
        "pysdk/export/build_engine.py",
        "pysdk/engines/onnxruntime.py",
    ):
        assert expected in names
    assert any(name.startswith("pysdk/_native.") and not name.endswith(".pyi") for name in names)
    assert wheel.stat().st_size < 2_000_000


def test_does_not_depend_on_torch(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        requirements = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist")
    needed = sorted(requirement for requirement in requirements if "extra ==" not in requirement)
    assert [requirement.split(">=")[0] for requirement in needed] == [
        "click",
        "msgspec",
        "numpy",
        "onnxruntime",
        "pillow",
        "tqdm",
    ]


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(folder: Path, code: str) -> str:
    """What code prints with the package of a folder, without this checkout on the path."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; import numpy as np, pysdk; from pysdk import _native, noise\n"
        "assert pysdk.__file__.startswith(sys.argv[1]) and _native.__file__.startswith(sys.argv[1])\n" + code
    )
    # -S: without the hook of an editable install, which would answer for pysdk first
    command = [sys.executable, "-S", "-c", code, folder, Path(np.__file__).parent.parent]
    return subprocess.run(command, check=True, cwd=folder, capture_output=True, text=True).stdout


def test_its_noise_is_that_of_the_reference(unpacked: Path) -> None:
    run(
        unpacked,
        "images = np.arange(3, dtype=np.uint64)\n"
        "assert np.array_equal(_native.normal(7, images, 0, (1, 5, 3)), noise.normal(7, images, 0, (1, 5, 3)))\n"
        "assert 'torch' not in sys.modules\n",
    )


def test_says_what_a_device_lacks(unpacked: Path) -> None:
    code = (
        "print(*_native.cuda_status())\ntry: _native.cuda_device(99)\nexcept _native.CudaError as error: print(error)\n"
    )
    status, refusal = run(unpacked, code).splitlines()
    built, devices, text = status.split(" ", 2)
    if NVCC is None:
        assert (built, devices) == ("False", "0")
    else:
        assert built == "True"
        assert text.startswith("built with CUDA 1")
    if devices == "0":
        assert refusal == f"cuda:99 cannot be used: {text}"
    else:
        assert refusal.startswith("there is no cuda:99")


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
def test_needs_no_shared_cuda_library(unpacked: Path) -> None:
    [extension] = (unpacked / "pysdk").glob("_native.*.so")
    needed = subprocess.run(["ldd", extension], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed
    assert "cuda" not in needed
