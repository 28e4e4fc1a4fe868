from collections.abc import Callable
from pathlib import Path

import pytest
from kit.cuda import tensorrt_stand_in
from msgspec.structs import replace

from pysdk import Plan, _testing
from pysdk.engines.tensorrt import kernel_cache, libraries
from pysdk.machine import cuda_driver
from pysdk.machine.cuda_driver import CudaDevice
from pysdk.plan.manifest import EngineInfo
from pysdk.plan.writer import write_plan


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> _testing.SimulatedDevice:
    """A simulated device that samplers find under every number."""
    made = _testing.SimulatedDevice()
    monkeypatch.setattr("pysdk.runtime.cuda.open_device", lambda number: made)
    monkeypatch.setattr("pysdk.engines.tensorrt.engine.open_device", lambda number: made)
    return made


@pytest.fixture
def trt(
    device: _testing.SimulatedDevice, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> tensorrt_stand_in.StandIn:
    """A machine with the library, "tensorrt" unless a test's parameter says "tensorrt_rtx", and two GPUs of different
    kinds, of which TensorRT-RTX knows the second only and so has it first."""
    name = getattr(request, "param", "tensorrt")
    made = tensorrt_stand_in.StandIn(
        device, tensorrt_stand_in.INFO if name == "tensorrt" else tensorrt_stand_in.RTX_INFO
    )
    cards = [CudaDevice("NVIDIA H200", "9.0"), CudaDevice("NVIDIA L4", "8.9")][:: 1 if name == "tensorrt" else -1]
    monkeypatch.delenv(kernel_cache.VARIABLE, raising=False)
    monkeypatch.setattr(libraries, "installed", lambda: [name])
    monkeypatch.setattr(libraries, "installed_version", lambda name: made.info.requires["version"])
    monkeypatch.setattr(libraries, "find", lambda name=None: made.library())
    monkeypatch.setattr(cuda_driver, "device", lambda index=0: cards[index])
    return made


@pytest.fixture
def make(conditional_plan: Path, tmp_path: Path) -> Callable[..., Path]:
    """The conditional plan with an engine of the stand-in before its own."""

    def make(info: EngineInfo = tensorrt_stand_in.INFO, *, stripped: bool = False) -> Path:
        path = tmp_path / "tensorrt.plan"
        with Plan.open(conditional_plan) as plan:
            members = {name: bytes(plan.member(name)) for name in plan.manifest.members}
            low, high = info.batches or (1, 8)
            onnx = b"" if stripped else members["network.onnx"]
            members[info.member] = tensorrt_stand_in.serialized(onnx, (low, info.batch_size, high))
            write_plan(path, replace(plan.manifest, engines=(info, *plan.manifest.engines)), members)
        return path

    return make
