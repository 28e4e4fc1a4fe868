import sys
from pathlib import Path

import pytest
import tensorrt_stand_in

from pysdk import _native, cuda_driver, tensorrt_library
from pysdk.cuda_driver import CudaDevice

# the random chains that the CPU's tests are made of
sys.path.insert(0, str(Path(__file__).parents[1] / "native"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _native.SimulatedDevice:
    """A simulated device that samplers find under every number."""
    made = _native.SimulatedDevice()
    monkeypatch.setattr("pysdk.cuda.executor.open_device", lambda number: made)
    monkeypatch.setattr("pysdk.engines.tensorrt.open_device", lambda number: made)
    return made


@pytest.fixture
def trt(device: _native.SimulatedDevice, monkeypatch: pytest.MonkeyPatch) -> tensorrt_stand_in.StandIn:
    """A machine with the library and two GPUs of different kinds."""
    made = tensorrt_stand_in.StandIn(device)
    cards = [CudaDevice("NVIDIA H200", "9.0"), CudaDevice("NVIDIA L4", "8.9")]
    monkeypatch.setattr(tensorrt_library, "installed", lambda: ["tensorrt"])
    monkeypatch.setattr(tensorrt_library, "installed_version", lambda name: tensorrt_stand_in.VERSION)
    monkeypatch.setattr(tensorrt_library, "find", lambda name=None: made.library())
    monkeypatch.setattr(cuda_driver, "device", lambda index=0: cards[index])
    return made
