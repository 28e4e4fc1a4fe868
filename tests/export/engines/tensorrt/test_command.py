"""`pysdk build --engine tensorrt` as people call it, with TensorRT-RTX itself."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.places import ROOT
from msgspec.structs import replace

from pysdk import Plan
from pysdk.engines.tensorrt import engine, libraries
from pysdk.export import build_engine
from pysdk.machine import cuda_driver
from pysdk.machine.cuda_driver import CudaDevice

without_rtx = pytest.mark.skipif(
    libraries.installed()[:1] != ["tensorrt_rtx"],
    reason="TensorRT-RTX is not installed (`pip install 'pysdk-diffusion[tensorrt]'`), or not the one that is taken",
)
pytestmark = [pytest.mark.slow, without_rtx]
SCRIPT = ROOT / "export" / "build_engine.py"


@pytest.fixture(scope="module")
def built(conditional_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A plan of the command, in bfloat16 for batches of 1 to 4, and what it showed."""
    path = tmp_path_factory.mktemp("command") / "a.plan"
    which = "--engine tensorrt --tensorrt-library tensorrt_rtx --compute-capability 8.9"
    how = "--precision bfloat16 --batch-size 2 --batch-profile 1,2,4 --steps 5 --check-seconds 0 -v"
    command = [sys.executable, SCRIPT, conditional_checkpoint, "-o", path, *which.split(), *how.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path, done.stderr


def test_what_it_shows(built: tuple[Path, str]) -> None:
    _, shown = built
    assert "TensorRT info: Detected 3 inputs and 1 output network tensors." in shown, "the builder's own log"
    assert "bfloat16 body (" in shown
    assert re.search(r"^  t = 999 to 999: max error [0-9.e-]+$", shown, re.MULTILINE), "the error over the timesteps"
    assert re.search(
        r"^  [0-9,]+ bytes; needs library tensorrt_rtx, version [0-9.]+, compute_capability 8\.9$", shown, re.M
    )
    for line in (
        "  in  x float32 (batch, 1, 8, 8)",
        "  in  t float32 (1)",
        "  in  label int64 (batch)",
        "  out output float32 (batch, 2, 8, 8)",
    ):
        assert line in shown.splitlines()
    assert re.search(r"^  layers of the .*: [0-9]+, most of them .*[0-9]+ convolution", shown, re.M)
    assert re.search(r"^build the TensorRT engine: [0-9.]+ s$", shown, re.M)


def test_the_advice_for_another_gpu_can_be_followed(
    built: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that the refusal names builds the plan in its place, with an engine for this GPU."""
    path = tmp_path / "a.plan"
    path.write_bytes(built[0].read_bytes())
    with Plan.open(path) as plan:
        old = plan.manifest.engines[0]
    monkeypatch.setattr(cuda_driver, "device", lambda number=0: CudaDevice("NVIDIA A10", "8.6"))
    found = re.search(r"again with `pysdk build (.*)`$", str(engine.unusable(old)))
    assert found is not None
    arguments = shlex.split(found[1].replace("PLAN", str(path)))
    result = CliRunner().invoke(build_engine.command, [*arguments, "--check-seconds", "0"])
    assert result.exit_code == 0, result.exception
    with Plan.open(path) as plan:
        new = plan.manifest.engines[0]
    assert engine.unusable(new) is None
    capability = "compute_capability"
    assert {"8.6", "8.9"} <= set(new.requires[capability].split())
    assert replace(new, requires={}, notes="", max_abs_error=None) == replace(
        old, requires={}, notes="", max_abs_error=None
    )
