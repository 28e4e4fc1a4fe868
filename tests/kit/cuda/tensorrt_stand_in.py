"""What is used of TensorRT's Python interface, on the memory of a simulated device, where there is neither.

Its engines hold an ONNX file, which ONNX Runtime runs on the addresses a context was given. It keeps these rules of
TensorRT: an engine is loaded, gets contexts and is enqueued on the current device; batches lie in the profile; a run
needs all shapes, addresses and the memory it works in; the first one allocates, so it cannot be captured; what is
refused returns None or False, or is a TypeError of a constructor, and is said to the logger. As TensorRT-RTX it makes
contexts by a configuration, and compiles kernels for their shapes in the first run, which a runtime cache can spare it;
a cache takes only what was compiled in the same environment. It shows nothing of what TensorRT itself accepts, computes
or takes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from msgspec.structs import replace

from pysdk import _native, _testing
from pysdk.engines.tensorrt.libraries import Library
from pysdk.plan.manifest import EngineInfo

VERSION = "11.4.1.10"
RTX_VERSION = "1.7.1.116"

INFO = EngineInfo(
    kind="tensorrt",
    member="tensorrt.engine",
    precision="float32",
    batch_size=4,
    batches=(2, 8),
    requires={"library": "tensorrt", "version": VERSION, "compute_capability": "9.0"},
)
"""What a plan says of an engine for batches of 2 to 8."""

RTX_INFO = replace(INFO, requires={"library": "tensorrt_rtx", "version": RTX_VERSION, "compute_capability": "8.6 8.9"})
"""The same of TensorRT-RTX."""

_DTYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(int32)": "INT32"}
_HEAD = struct.Struct("<4s3H")


def serialized(onnx: bytes, profile: tuple[int, int, int]) -> bytes:
    """An engine; without an ONNX file it lacks its weights."""
    return _HEAD.pack(b"ftrt", *profile) + onnx


class StandIn:
    """The module `tensorrt`, or `tensorrt_rtx`.

    Attributes:
        device: where its engines run.
        info: what a plan says of its engines.
        environment: what compiled kernels are for.
        compiled: the shapes that kernels were compiled for.
        contexts: all that were made.
        refuse: names of functions, each of which fails the next time it is called.
    """

    def __init__(self, device: _testing.SimulatedDevice, info: EngineInfo = INFO) -> None:
        self.device = device
        self.info = info
        self.environment = "driver 580"
        self.compiled: list[str] = []
        self.contexts: list[Context] = []
        self.refuse: list[str] = []
        self.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
        self.TensorFormat = SimpleNamespace(LINEAR=SimpleNamespace(name="LINEAR"))
        self.TensorLocation = SimpleNamespace(DEVICE=SimpleNamespace(name="DEVICE"))
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user managed")
        self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    class ILogger:
        pass

    def library(self) -> Library:
        return Library(self.info.requires["library"], self.info.requires["version"], self)

    def fails(self, name: str, logger: Any) -> bool:
        """Whether a call is to fail, for want of a device or by request; it is logged."""
        if not self.device.is_current:
            logger.log(1, f"{name}: no current device")
        elif name in self.refuse:
            self.refuse.remove(name)
            logger.log(1, f"{name}: failure asked for by the test")
        else:
            return False
        return True

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        def deserialize(data: memoryview) -> Engine | None:
            if self.fails("deserialize", logger):
                return None
            return Engine(self, logger, data)

        if "runtime" in self.refuse and self.fails("runtime", logger):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(deserialize_cuda_engine=deserialize)

    def Refitter(self, engine: Engine, logger: Any) -> Any:  # noqa: N802
        return SimpleNamespace(engine=engine, refit_cuda_engine=lambda: engine.session is not None)

    def OnnxParserRefitter(self, refitter: Any, logger: Any) -> Any:  # noqa: N802
        def refit(onnx: memoryview) -> bool:
            refitter.engine.put(bytes(onnx))
            return True

        return SimpleNamespace(refit_from_bytes=refit)


class Engine:
    """trt.ICudaEngine."""

    def __init__(self, api: StandIn, logger: Any, data: memoryview | bytes) -> None:
        self.api, self.logger = api, logger
        _, *profile = _HEAD.unpack(data[: _HEAD.size])
        self.profile = tuple(profile)
        self.session: onnxruntime.InferenceSession | None = None
        self.nodes: dict[str, Any] = {}
        if data[_HEAD.size :]:
            self.put(bytes(data[_HEAD.size :]))

    def put(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.inputs = {node.name for node in self.session.get_inputs()}
        self.nodes = {node.name: node for node in [*self.session.get_inputs(), *self.session.get_outputs()]}

    @property
    def num_io_tensors(self) -> int:
        return len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_DTYPES[self.nodes[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.nodes[name].shape)

    def get_tensor_format(self, name: str) -> Any:
        return self.api.TensorFormat.LINEAR

    def get_tensor_location(self, name: str) -> Any:
        return self.api.TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert index == 0
        return [tuple(b if s == -1 else s for s in self.get_tensor_shape(name)) for b in self.profile]

    def create_runtime_config(self) -> RuntimeConfig:
        assert self.api.info is RTX_INFO
        return RuntimeConfig(self.api)

    def create_execution_context(self, strategy_or_config: str | RuntimeConfig) -> Context | None:
        strategy, cache = strategy_or_config, None
        if self.api.info is RTX_INFO:
            assert isinstance(strategy_or_config, RuntimeConfig)
            assert strategy_or_config.dynamic_shapes_kernel_specialization_strategy == "eager"
            strategy, cache = strategy_or_config.strategy, strategy_or_config.cache
        assert strategy == "user managed"
        if self.api.fails("context", self.logger):
            return None
        self.api.contexts.append(Context(self, cache))
        return self.api.contexts[-1]


class RuntimeCache:
    """trt.IRuntimeCache: the shapes that kernels were compiled for."""

    def __init__(self, api: StandIn) -> None:
        self.api = api
        self.shapes: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        assert self.api.device.is_current
        try:
            environment, shapes = json.loads(blob)
        except ValueError:
            return False
        if environment != self.api.environment:
            return False
        self.shapes = set(shapes)
        return True

    def serialize(self) -> bytes:
        self.api.device.empty((1,), "uint8")  # which no capture bears
        return json.dumps([self.api.environment, sorted(self.shapes)]).encode()


class RuntimeConfig:
    """trt.IRuntimeConfig."""

    def __init__(self, api: StandIn) -> None:
        self.api = api
        self.strategy = "static"
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self.api)

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class Context:
    """trt.IExecutionContext."""

    def __init__(self, engine: Engine, cache: RuntimeCache | None = None) -> None:
        self.engine = engine
        self.cache = cache
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.runs: list[str] = []
        self.scratch: _native.DeviceArray | None = None
        self.memory = 0
        self.work = self.run  # kept, as a simulated graph does not

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self.engine.get_tensor_profile_shape(name, 0)
        if len(shape) != len(low) or not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            self.engine.logger.log(1, f"{name} is outside of the profile, {low} to {high}")
            return False
        self.shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        return sorted(self.engine.inputs - set(self.shapes))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return name in self.engine.nodes

    def update_device_memory_size_for_shapes(self) -> int:
        assert not self.infer_shapes()
        return 4096 * self.shapes["x"][0] if "x" in self.shapes else 4096

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size == self.update_device_memory_size_for_shapes()
        self.memory = memory

    def execute_async_v3(self, stream: int) -> bool:
        api, logger = self.engine.api, self.engine.logger
        ready = self.memory and self.addresses.keys() == self.engine.nodes.keys() and not self.infer_shapes()
        if not ready or api.fails("enqueue", logger):
            return False
        try:
            if self.scratch is None:
                self.scratch = api.device.empty((16,), "float32")
                self.compile()
        except _native.CaptureError as error:
            logger.log(1, str(error))
            return False
        api.device.call(stream, "tensorrt", self.work)
        self.runs.append("captured" if api.device.log[-1].startswith("> ") else "run")
        return True

    def compile(self) -> None:
        shapes = str(sorted(self.shapes.items()))
        if self.engine.api.info is not RTX_INFO or (self.cache is not None and shapes in self.cache.shapes):
            return
        self.engine.api.compiled.append(shapes)
        if self.cache is not None:
            self.cache.shapes.add(shapes)

    def run(self) -> None:
        session = self.engine.session
        assert session is not None
        binding = session.io_binding()
        for name in self.engine.inputs:
            dtype = np.int64 if self.engine.nodes[name].type == "tensor(int64)" else np.float32
            binding.bind_input(name, "cpu", 0, dtype, self.shapes[name], self.addresses[name])
        batch = max((shape[0] for shape in self.shapes.values() if len(shape) == 4), default=1)
        for node in session.get_outputs():
            binding.bind_output(node.name, "cpu", 0, np.float32, (batch, *node.shape[1:]), self.addresses[node.name])
        session.run_with_iobinding(binding)
