"""The TensorRT engine of a plan: why a machine cannot run it, and how a context is prepared for a device chain."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.tiny_networks import toy_engine, write_toy_plan

from pysdk import Sampler
from pysdk.engines.tensorrt import engine, libraries
from pysdk.engines.tensorrt.libraries import IoTensor, Library, Log
from pysdk.errors import EngineError
from pysdk.machine import cuda_driver
from pysdk.machine.cuda_driver import CudaDevice
from pysdk.plan.manifest import EngineInfo, ModelInfo

REQUIRES = {"library": "tensorrt", "version": "11.4.1.10", "compute_capability": "9.0"}


def info(**requires: str) -> EngineInfo:
    return toy_engine(kind="tensorrt", requires={**REQUIRES, **requires})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine that has everything; its parts can be changed."""

    def set_up(
        installed: tuple[str, ...] = ("tensorrt",), version: str | None = "11.4.1.10", device: CudaDevice | None = None
    ) -> None:
        monkeypatch.setattr(libraries, "installed", lambda: list(installed))
        monkeypatch.setattr(libraries, "installed_version", lambda name: version)
        monkeypatch.setattr(cuda_driver, "device", lambda index=0: device or CudaDevice("NVIDIA H200", "9.0"))

    set_up()
    return set_up


def test_why_a_machine_cannot_run_it(machine: Any) -> None:
    assert engine.unusable(info()) is None
    assert engine.unusable(info(compute_capability="8.9 9.0")) is None
    machine(installed=())
    reason = str(engine.unusable(info()))
    assert (
        reason == "it needs TensorRT 11.4.1.10, which is not installed; get it with `pip install tensorrt==11.4.1.10`"
    )
    reason = str(engine.unusable(info(library="tensorrt_rtx", version="1.7.1.116")))
    assert reason.endswith("`pip install tensorrt-rtx-cu13-libs==1.7.1.116 tensorrt-rtx-cu13-bindings==1.7.1.116`")
    machine(version="10.13.0.35")
    reason = str(engine.unusable(info()))
    assert (
        "built with TensorRT 11.4.1.10, this machine has 10.13.0.35; build the plan again with `pysdk build" in reason
    )
    machine(device=CudaDevice("NVIDIA L4", "8.9"))
    reason = str(engine.unusable(info()))
    assert "built for compute capability 9.0, the NVIDIA L4 of this machine has 8.9; build the plan again" in reason
    assert reason.endswith("with `pysdk build PLAN -o PLAN --engine tensorrt --engine auto --batch-size 4`")
    with pytest.raises(
        EngineError, match=r"the TensorRT engine cannot be used: it was built for compute capability 9\.0"
    ):
        engine.load(ModelInfo(name="toy", shape=(1, 2, 2), out_channels=1), info(), memoryview(b""), 0)
    assert "does not say which TensorRT it needs" in str(engine.unusable(info(library="")))


def test_advice_that_can_be_followed(machine: Any) -> None:
    """The command builds the same engine; a library that cannot build for this GPU is not asked again."""
    half = toy_engine(
        kind="tensorrt",
        precision="float16",
        batch_size=16,
        batches=(1, 64),
        requires={"library": "tensorrt_rtx", "version": "1.7.1.116", "compute_capability": "8.9 12.0"},
    )
    command = "`pysdk build PLAN -o PLAN --engine tensorrt --engine auto --batch-size 16 --batch-profile 1,16,64"
    reason = "built for compute capability 8.9, 12.0, the NVIDIA H200 of this machine has 9.0; TensorRT-RTX does not "
    advice = f"build for that, so `pip install tensorrt`, then build the plan again with {command} --precision float16`"
    assert str(engine.unusable(half)).endswith(reason + advice)
    machine(device=CudaDevice("NVIDIA A10", "8.6"))
    assert str(engine.unusable(half)).endswith(f"has 8.6; build the plan again with {command} --precision float16`")
    elsewhere = toy_engine(kind="tensorrt", precision="unknown", requires=REQUIRES)
    assert "the plan cannot be built again: build from the ONNX file that it" in str(engine.unusable(elsewhere))


def test_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError

    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", missing)
    with pytest.raises(
        EngineError, match=r"there is no NVIDIA driver on this machine \(libcuda\.so\.1 was not found\)"
    ):
        cuda_driver.device()


def test_the_driver_of_this_machine_is_asked_without_a_crash() -> None:
    with pytest.raises(EngineError, match=r"no NVIDIA driver|NVIDIA driver cannot|there is no CUDA device 1000"):
        cuda_driver.device(1000)


def test_a_damaged_driver_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuInit answers 100: no device."""

    def text(status: int, out: Any) -> None:
        out._obj.value = b"no CUDA-capable device is detected"

    driver = SimpleNamespace(cuInit=lambda flags: 100, cuGetErrorString=text)
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: driver)
    with pytest.raises(EngineError, match=r"driver cannot start: no CUDA-capable device is detected \(100\)"):
        cuda_driver.device()


def test_the_next_engine_of_the_plan_is_taken(tmp_path: Path) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", engines=(info(version="1.0"), toy_engine()))
    with Sampler(path, threads=1) as sampler:
        assert sampler.info["running"]["engine"] == "onnxruntime"
        assert list(sampler.info["running"]["skipped"]) == ["tensorrt"]
    with pytest.raises(EngineError, match=r"no engine 'tensorrt' .* \(tensorrt: it"):
        Sampler(path, engine="tensorrt")


# How a run is prepared. Without a device there is no context; this one writes down what it is told.


class Context:
    def __init__(self, refused: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.refused = refused

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            if name == "update_device_memory_size_for_shapes":
                return 640
            return [] if name == "infer_shapes" else name != self.refused

        return call


TENSORS = {
    "x": IoTensor("x", "float32", (-1, 1, 2, 2), True),
    "t": IoTensor("t", "float32", (1,), True),
    "label": IoTensor("label", "int64", (-1,), True),
    "output": IoTensor("output", "float32", (-1, 1, 2, 2), False),
}


def network(context: Context | None, tensors: dict[str, IoTensor] = TENSORS) -> engine.TensorrtNetwork:
    loaded: Any = SimpleNamespace(create_execution_context=lambda strategy: context)
    api = SimpleNamespace(ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=2))
    return engine.TensorrtNetwork(Library("tensorrt", "11.4.1.10", api), loaded, tensors, Log(), Scratch)


class Scratch(list[int]):
    """Memory of so many bytes."""

    pointer = 5120
    __hash__ = object.__hash__

    def __init__(self, size: int) -> None:
        super().__init__([0] * size)


BUFFERS: Any = SimpleNamespace(
    network_input=SimpleNamespace(pointer=1000, shape=(4, 1, 2, 2)),
    network_time=SimpleNamespace(pointer=2000, shape=(1,)),
    network_labels=SimpleNamespace(pointer=3000, shape=(4,)),
    network_output=SimpleNamespace(pointer=4000, shape=(4, 1, 2, 2)),
)


def test_shapes_then_addresses_then_runs() -> None:
    context = Context()
    enqueue = network(context).bind(BUFFERS)
    assert context.calls == [
        ("set_input_shape", "x", (4, 1, 2, 2)),
        ("set_input_shape", "t", (1,)),
        ("set_input_shape", "label", (4,)),
        ("infer_shapes",),
        ("update_device_memory_size_for_shapes",),
        ("set_device_memory", 5120, 640),
        ("set_tensor_address", "x", 1000),
        ("set_tensor_address", "t", 2000),
        ("set_tensor_address", "label", 3000),
        ("set_tensor_address", "output", 4000),
    ]
    context.calls.clear()
    enqueue(77)
    assert context.calls == [("execute_async_v3", 77)]


def test_names_and_a_time_without_axes() -> None:
    context = Context()
    tensors = {
        "x": IoTensor("sample", "float32", (-1, 1, 2, 2), True),
        "t": IoTensor("timestep", "float32", (), True),
        "output": IoTensor("noise", "float32", (-1, 1, 2, 2), False),
    }
    network(context, tensors).bind(BUFFERS)
    assert context.calls == [
        ("set_input_shape", "sample", (4, 1, 2, 2)),
        ("set_input_shape", "timestep", ()),
        ("infer_shapes",),
        ("update_device_memory_size_for_shapes",),
        ("set_device_memory", 5120, 640),
        ("set_tensor_address", "sample", 1000),
        ("set_tensor_address", "timestep", 2000),
        ("set_tensor_address", "noise", 4000),
    ]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ("set_input_shape", r"takes no 'x' of shape \(4, 1, 2, 2\) \(it gave no reason\); build the plan again"),
        ("set_tensor_address", "does not take the memory of 'x'"),
        ("execute_async_v3", "refused to enqueue"),
    ],
)
def test_what_the_context_refuses_is_an_error(refused: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        network(Context(refused)).bind(BUFFERS)(77)


def test_shapes_that_do_not_go_together() -> None:
    class Strict(Context):
        def infer_shapes(self) -> list[str]:
            raise RuntimeError

    with pytest.raises(EngineError, match="GPU cannot run with these shapes: it gave no reason"):
        network(Strict()).bind(BUFFERS)


def test_no_room_for_a_context() -> None:
    with pytest.raises(EngineError, match=r"TensorRT 11\.4\.1\.10 cannot make an execution context"):
        network(None).bind(BUFFERS)


def test_an_engine_of_another_network() -> None:
    model = ModelInfo(name="toy", shape=(1, 2, 2), out_channels=1)
    good = [
        IoTensor("x", "float32", (-1, 1, 2, 2), True),
        IoTensor("t", "float32", (1,), True),
        IoTensor("output", "float32", (-1, 1, 2, 2), False),
    ]
    assert engine.check_io(good, model) == {tensor.name: tensor for tensor in good}
    for bad in (
        good[:2],
        [*good[:2], IoTensor("output", "float16", (-1, 1, 2, 2), False)],
        [*good[:2], IoTensor("output", "float32", (-1, 1, 2, 2), True)],
        [*good[:2], IoTensor("output", "float32", (-1, 2, 2, 2), False)],
        [*good[:2], IoTensor("output", "float32", (4, 1, 2, 2), False)],
        [good[0], IoTensor("t", "float32", (-1, 1), True), good[2]],
        [*good, IoTensor("mask", "float32", (-1, 1, 2, 2), True)],
    ):
        with pytest.raises(EngineError, match="the manifest does not belong to it"):
            engine.check_io(bad, model)


def test_what_an_engine_may_call_its_tensors() -> None:
    model = ModelInfo(name="toy", shape=(1, 2, 2), out_channels=1, num_classes=3)
    io = [
        IoTensor("x", "float32", (), True),
        IoTensor("sample", "float32", (4, 1, 2, 2), True),
        IoTensor("y", "int64", (4,), True),
        IoTensor("noise", "float32", (4, 1, 2, 2), False),
    ]
    names = {"x": "sample", "t": "x", "label": "y", "output": "noise"}
    found = engine.check_io(io, model, names)
    assert [(role, tensor.name) for role, tensor in found.items()] == list(names.items())
    with pytest.raises(EngineError, match="the manifest does not belong to it"):
        engine.check_io(io, model, {**names, "label": "noise"})
