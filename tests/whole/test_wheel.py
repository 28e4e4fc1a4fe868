"""The wheel without CUDA: what is in it, what it asks for, and that it works where nothing else is installed.

With CUDA the extension of this environment is built, if there is a compiler; tests/cuda has the tests of that.
"""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import numpy as np
import pytest
from kit.places import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built like any user's but with the tools that are here."""
    import pybind11  # noqa: F401  # it comes with what builds

    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", folder, ROOT]
    # by variables: pip 23.0, that of Debian 12, knows no -C
    environment = {**os.environ, "PYSDK_CUDA": "OFF", "SKBUILD_BUILD_DIR": str(folder / "build")}
    subprocess.run(command, check=True, env=environment)
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
        "pysdk/engines/onnxruntime/engine.py",
    ):
        assert expected in names
    assert any(name.startswith("pysdk/_native.") and not name.endswith(".pyi") for name in names)
    assert not [name for name in names if "_testing" in name]
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
        "images, seeds = np.arange(3, dtype=np.uint64), np.full(3, 7, np.uint64)\n"
        "chain = _native.Chain(batch=3, shape=(1, 5, 3))\n"
        "table = _native.StepTable(np.zeros((1, len(_native.STEP_COLUMNS)), np.float32))\n"
        "chain.begin(table, seeds=seeds, images=images)\n"
        "assert np.array_equal(chain.x, noise.normal(7, images, 0, (1, 5, 3)))\n"
        "assert 'torch' not in sys.modules\n",
    )


def test_says_that_it_has_no_cuda(unpacked: Path) -> None:
    built, devices, text = run(unpacked, "print(*_native.cuda_status())").split(" ", 2)
    assert (built, devices) == ("False", "0")
    assert "built without a CUDA compiler" in text
