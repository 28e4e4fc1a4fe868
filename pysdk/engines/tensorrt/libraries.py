"""TensorRT from Python: which of its packages is installed, and what differs between them.

`tensorrt` (10.x, 11.x) compiles an engine for the GPU that it builds on. `tensorrt_rtx` needs no GPU to build: it
writes an engine for a list of compute capabilities and finishes the compilation where the engine is loaded. Both have
the same API but for what is written here; no other file asks which one it has.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pysdk.distribution import install_extra
from pysdk.engines.tensorrt.kernel_cache import KernelCache
from pysdk.engines.tensorrt.protocols import TensorrtContext, TensorrtEngine
from pysdk.errors import EngineError, MissingDependencyError

MODULES = {"tensorrt": ("tensorrt", "tensorrt_bindings"), "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""Libraries by the name plans use, in the order they are looked for, with the modules that are the API of each. The
-bindings packages can be installed alone."""

TITLES = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""The compute capabilities that TensorRT-RTX builds for, as of 1.7: not those of data centres from 9.0 on."""

_INSTALL = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"),
}
_DISTRIBUTIONS = ("", "-cu13", "-cu12", "-cu13-bindings", "-cu12-bindings")
_SEVERITIES = ("internal error", "error", "warning", "info", "verbose")


@dataclass(frozen=True)
class IoTensor:
    """An input or output of an engine or network.

    Attributes:
        name: the tensor's.
        dtype: "float32", "int64", ...
        shape: -1 for a size that is left open.
        is_input: or an output.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_input: bool

    def __str__(self) -> str:
        sizes = ", ".join("batch" if size == -1 else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({sizes})"


class Log:
    """What the library says: kept, and passed on to `echo` as (severity, message)."""

    def __init__(self, echo: Callable[[str, str], object] | None = None) -> None:
        self.echo = echo
        self.errors: list[str] = []

    def record(self, severity: int, message: str) -> None:
        """Called by the library, 0 for an internal error to 4 for verbose."""
        line = " ".join(message.split())
        if severity <= 1:
            self.errors.append(line)
        if self.echo is not None:
            self.echo(_SEVERITIES[severity], line)

    def reason(self) -> str:
        """Why something failed: the errors since this was asked last, each once."""
        errors, self.errors = self.errors, []
        return "; ".join(dict.fromkeys(errors)) or "it gave no reason"


@dataclass(frozen=True)
class Library:
    """An installed TensorRT.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx".
        version: e.g. "1.7.1.116".
        api: its module.
    """

    name: str
    version: str
    api: Any

    @property
    def title(self) -> str:
        """Name and version for people."""
        return f"{TITLES[self.name]} {self.version}"

    @property
    def builds_without_device(self) -> bool:
        """Whether engines can be built on a machine without a GPU."""
        return self.name == "tensorrt_rtx"

    @property
    def has_timing_cache(self) -> bool:
        """Whether tactics are timed while building; TensorRT-RTX chooses them when the engine is loaded."""
        return self.name == "tensorrt"

    @property
    def compiles_when_loaded(self) -> bool:
        """Whether contexts compile kernels, which can be kept."""
        return self.name == "tensorrt_rtx"

    def logger(self, log: Log) -> Any:
        """A trt.ILogger that writes to `log`."""
        base = self.api.ILogger

        class Logger(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                base.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                log.record(int(severity), message)

        return Logger()

    def make(self, kind: str, log: Log, *arguments: Any) -> Any:
        """One of the library's objects, e.g. a "Runtime". EngineError with its own reason if it makes none."""
        try:
            return getattr(self.api, kind)(*arguments)
        except TypeError as error:  # what constructors raise for a null pointer: no driver, an old one, no memory
            raise EngineError(f"{self.title} cannot make a {kind}: {log.reason()}") from error

    def network_flags(self) -> int:
        """For `create_network`: strongly typed, which 10.x has to be told and 11.x always is."""
        flag = getattr(self.api.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def compute_capabilities(self) -> dict[str, Any]:
        """Those an engine can be built for without a GPU of that kind: {"8.9": ComputeCapability.SM89}."""
        enum = getattr(self.api, "ComputeCapability", None)
        members: dict[str, Any] = {} if enum is None or not self.builds_without_device else enum.__members__
        numbers = sorted(int(name[2:]) for name in members if name.startswith("SM") and name[2:].isdigit())
        return {f"{number // 10}.{number % 10}": members[f"SM{number}"] for number in numbers}

    def strip_flags(self) -> list[Any]:
        """Builder flags for an engine without its weights, which is refitted from the same ONNX file when loaded."""
        return [self.api.BuilderFlag.STRIP_PLAN, self.api.BuilderFlag.REFIT_IDENTICAL]

    def capture_flags(self) -> list[Any]:
        """Builder flags for an engine that can be captured: one of TensorRT-RTX must not allocate while it runs."""
        flag = getattr(self.api.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
        return [] if flag is None else [flag]

    def dtype_name(self, dtype: Any) -> str:
        """ "float32" of trt.DataType.FLOAT."""
        names = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
        return names.get(dtype.name) or str(dtype.name).lower()

    def io_tensors(self, engine: TensorrtEngine) -> list[IoTensor]:
        """Inputs and outputs of a loaded engine. EngineError if one is not a plain array in device memory."""
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        for name in names:
            layout, location = engine.get_tensor_format(name), engine.get_tensor_location(name)
            if layout != self.api.TensorFormat.LINEAR or location != self.api.TensorLocation.DEVICE:
                raise EngineError(
                    f"the engine has {name!r} in the layout {layout.name}, in {location.name.lower()} memory; expected "
                    "LINEAR, in device memory"
                )
        return [
            IoTensor(
                name,
                self.dtype_name(engine.get_tensor_dtype(name)),
                tuple(engine.get_tensor_shape(name)),
                engine.get_tensor_mode(name) == self.api.TensorIOMode.INPUT,
            )
            for name in names
        ]

    def batches(self, engine: TensorrtEngine, name: str) -> tuple[int, int, int]:
        """Smallest, usual and largest batch of an input, by its shape or by the engine's first profile."""
        size = engine.get_tensor_shape(name)[0]
        if size != -1:
            return size, size, size
        smallest, usual, largest = (int(shape[0]) for shape in engine.get_tensor_profile_shape(name, 0))
        return smallest, usual, largest

    def deserialize(self, engine: memoryview | bytes, log: Log | None = None) -> TensorrtEngine:
        """The engine on the current device; `log` gets what is said of it from then on.

        EngineError with the library's own reason if it refuses, e.g. no device.
        """
        log = log or Log()
        logger = self.logger(log)
        runtime = self.make("Runtime", log, logger)
        found: TensorrtEngine | None = runtime.deserialize_cuda_engine(engine)
        if found is None:
            raise EngineError(f"{self.title} cannot load the engine: {log.reason()}")
        return _Kept(found, runtime, logger)

    def context(self, engine: TensorrtEngine, log: Log, kernels: KernelCache | None = None) -> TensorrtContext:
        """A new execution context on the current device, that of the engine, without memory for its activations.

        That of TensorRT-RTX has its kernels finished at once: by default it starts with others and replaces them while
        it runs, which a captured graph would not see. It shares those it compiles through `kernels`.

        Raises:
            EngineError: the library makes none; the message has its reason.
        """
        strategy = self.api.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.name == "tensorrt_rtx":
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.dynamic_shapes_kernel_specialization_strategy = (
                self.api.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            if kernels is not None:
                kernels.attach(config)
                log.reason()  # what it says of kernels from elsewhere is no reason for a failure
            made = engine.create_execution_context(config)
        else:
            config = None
            made = engine.create_execution_context(strategy)
        if made is None:
            raise EngineError(f"{self.title} cannot make an execution context: {log.reason()}")
        return _Kept(made, config)

    def refit(self, engine: TensorrtEngine, network: memoryview | bytes) -> None:
        """Put the weights of an ONNX file into an engine that was built without. EngineError if they do not fit."""
        log = Log()
        logger = self.logger(log)
        raw = engine.made if isinstance(engine, _Kept) else engine
        refitter = self.make("Refitter", log, raw, logger)
        parser = self.make("OnnxParserRefitter", log, refitter, logger)
        if not parser.refit_from_bytes(network) or not refitter.refit_cuda_engine():
            raise EngineError(f"{self.title} cannot put the weights into the engine: {log.reason()}")


class _Kept:
    """An object of the library that keeps alive what it was made with, e.g. an engine its runtime and logger."""

    def __init__(self, made: Any, *owners: Any) -> None:
        self.made = made
        self.owners = owners

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


def installed() -> list[str]:
    """The libraries whose package is there, by name; it may still fail to load."""
    return [name for name in MODULES if _module(name) is not None]


def installed_version(name: str) -> str | None:
    """The version of a library without loading it; None if its package does not say."""
    for suffix in _DISTRIBUTIONS:
        try:
            return metadata.version(name.replace("_", "-") + suffix)
        except metadata.PackageNotFoundError:
            continue
    return None


def install_command(name: str, version: str = "") -> str:
    """What installs a library, of this version if one is given."""
    return " ".join(["pip install", *(package + f"=={version}" * bool(version) for package in _INSTALL[name])])


def find(name: str | None = None) -> Library:
    """A library, loaded; the first that is installed if none is named.

    Raises:
        MissingDependencyError: it is not installed.
        EngineError: it is there but cannot be loaded.
    """
    names = [found for found in installed() if name in (None, found)]
    if not names:
        wanted = "neither tensorrt nor tensorrt_rtx is" if name is None else f"{name} is not"
        command = install_extra("tensorrt") if name is None else install_command(name)
        raise MissingDependencyError(f"{wanted} installed; get it with `{command}`")
    try:
        api = importlib.import_module(_module(names[0]) or names[0])
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"{TITLES[names[0]]} is installed but cannot be loaded: {error}") from error
    return Library(names[0], str(api.__version__), api)


def _module(name: str) -> str | None:
    """The library's module that is installed; a folder that happens to have its name is none."""
    specs = ((module, importlib.util.find_spec(module)) for module in MODULES[name])
    return next((module for module, spec in specs if spec is not None and spec.origin is not None), None)
