"""What TensorRT refuses of a plan's engine is an error with its own reason; see test_tensorrt_on_device.py."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from kit.cuda import tensorrt_stand_in
from kit.cuda.tensorrt_stand_in import StandIn

from pysdk import Plan, Sampler
from pysdk.errors import DeviceError, EngineError
from pysdk.plan.writer import write_plan


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("context", r"TensorRT 11\.4\.1\.10 cannot make an execution context: context: failure asked for"),
        ("enqueue", r"GPU failed after step 0: TensorRT refused to enqueue the network: enqueue: failure asked for"),
    ],
)
def test_refusals_are_errors_and_leave_nothing_behind(
    trt: StandIn, make: Callable[..., Path], name: str, message: str
) -> None:
    with Sampler(make(), device="cuda") as sampler:
        expected = sampler.sample(6, steps=3)
        sampler.sample(6, steps=3, guidance_scale=2.0)
        live = trt.device.live
        sampler._executor._idle.clear()
        gc.collect()
        trt.refuse = [name]
        with pytest.raises(EngineError, match=message):
            sampler.sample(6, steps=3)
        np.testing.assert_array_equal(sampler.sample(6, steps=3), expected)
        sampler.sample(6, steps=3, guidance_scale=2.0)
        trt.contexts.clear()
        gc.collect()
        assert trt.device.live <= live + 2, "the scratch memory of contexts that the test itself kept"


def test_a_library_that_cannot_start_says_why(trt: StandIn, make: Callable[..., Path]) -> None:
    """Its constructors raise TypeError then, e.g. when the driver is older than its CUDA."""
    trt.refuse = ["runtime"]
    with pytest.raises(EngineError, match=r"TensorRT 11\.4\.1\.10 cannot make a Runtime: runtime: failure asked for"):
        Sampler(make(), device="cuda")


def test_no_room_to_work_in(trt: StandIn, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context = tensorrt_stand_in.Context
    with Sampler(make(), device="cuda") as sampler:
        live = trt.device.live
        with monkeypatch.context() as patched:
            patched.setattr(context, "update_device_memory_size_for_shapes", lambda self: 1 << 31)
            with pytest.raises(DeviceError, match="2147483648 bytes"):
                sampler.sample(6, steps=2)
        gc.collect()
        assert trt.device.live == live
        sampler.sample(6, steps=2)


def test_a_refusal_in_the_middle_of_plain_calls_is_no_silent_image(trt: StandIn, make: Callable[..., Path]) -> None:
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append(done)
        trt.refuse = ["enqueue"]

    with (
        Sampler(make(), device="cuda", launch="plain") as sampler,
        pytest.raises(EngineError, match="TensorRT refused to enqueue the network"),
    ):
        sampler.sample(16, steps=50, progress=progress)
    assert seen


def test_a_network_that_cannot_be_captured_is_called_plainly(
    trt: StandIn, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = tensorrt_stand_in.Context.execute_async_v3

    def uncapturable(self: tensorrt_stand_in.Context, stream: int) -> bool:
        self.scratch = None  # it allocates each time
        return execute(self, stream)

    monkeypatch.setattr(tensorrt_stand_in.Context, "execute_async_v3", uncapturable)
    path = make()
    with Sampler(path, device="cuda") as sampler, Sampler(path, engine="onnxruntime", threads=1) as cpu:
        np.testing.assert_array_equal(sampler.sample(3, steps=3), cpu.sample(3, steps=3))
        chain = sampler.info["running"]["chain"]
    assert (
        "plain calls, the network cannot be captured: TensorRT refused to enqueue the network: allocate is not" in chain
    )
    with (
        Sampler(path, device="cuda", launch="while") as sampler,
        pytest.raises(EngineError, match="the network cannot be captured: TensorRT refused to enqueue"),
    ):
        sampler.sample(3, steps=3)


def test_an_engine_of_another_network_is_refused(
    trt: StandIn, make: Callable[..., Path], unconditional_plan: Path
) -> None:
    path = make()
    with Plan.open(path) as plan, Plan.open(unconditional_plan) as other:
        members = {name: bytes(plan.member(name)) for name in plan.manifest.members}
        members["tensorrt.engine"] = tensorrt_stand_in.serialized(bytes(other.member("network.onnx")), (2, 4, 8))
        write_plan(path, plan.manifest, members)
    with pytest.raises(
        EngineError, match=r"the network has x float32 \(batch, 3, 8, 8\), .*; expected x float32 \(bat"
    ):
        Sampler(path, device="cuda")


def test_an_engine_with_images_in_another_layout_is_refused(
    trt: StandIn, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of trtexec --inputIOFormats: the chain's memory has one layout."""
    monkeypatch.setattr(tensorrt_stand_in.Engine, "get_tensor_format", lambda self, name: SimpleNamespace(name="CHW4"))
    with pytest.raises(EngineError, match="the engine has 'x' in the layout CHW4, in device memory; expected LINEAR"):
        Sampler(make(), device="cuda")
