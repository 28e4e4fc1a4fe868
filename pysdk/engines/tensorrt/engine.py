"""TensorRT on an NVIDIA GPU: an engine of `pysdk build --engine tensorrt`, enqueued in the device chain's stream.

`EngineInfo.requires` names the library ("tensorrt" or "tensorrt_rtx"), its version and the compute capabilities,
`batches` the batches of its profile, `names` what it calls its tensors if it was made elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import ref

from pysdk.engines.contract import DeviceBuffers
from pysdk.engines.tensorrt import libraries
from pysdk.engines.tensorrt.kernel_cache import KernelCache, kernel_cache
from pysdk.engines.tensorrt.libraries import RTX_CAPABILITIES, TITLES, IoTensor, Library, Log
from pysdk.engines.tensorrt.protocols import TensorrtContext, TensorrtEngine
from pysdk.errors import EngineError
from pysdk.machine import cuda_driver
from pysdk.machine.devices import open_device
from pysdk.plan.manifest import EngineInfo, ModelInfo

if TYPE_CHECKING:
    from pysdk import _native

DEVICE = "cuda"
MEMBER = "tensorrt.engine"
"""Its file in a plan."""


def unusable(info: EngineInfo, device: int = 0) -> str | None:
    """Why device `device` of this machine cannot run such an engine, or None if it can.

    Loads nothing but the NVIDIA driver.
    """
    name, version = info.requires.get("library", ""), info.requires.get("version", "")
    if name not in TITLES:
        return f"it does not say which TensorRT it needs; {_rebuild(info)}"
    try:
        gpu = cuda_driver.device(device)
    except EngineError as error:
        return str(error)
    title, capability = TITLES[name], gpu.compute_capability
    capabilities = info.requires.get("compute_capability", "").split()
    if capabilities and capability not in capabilities:
        reason = f"it was built for compute capability {', '.join(capabilities)}, the {gpu.name} of this machine has "
        other = ""
        if name == "tensorrt_rtx" and capability not in RTX_CAPABILITIES:
            other = f"TensorRT-RTX does not build for that, so `{libraries.install_command('tensorrt')}`, then "
        return f"{reason}{capability}; {other}{_rebuild(info)}"
    if name not in libraries.installed():
        command = libraries.install_command(name, version)
        return f"it needs {title} {version}, which is not installed; get it with `{command}`"
    here = libraries.installed_version(name)
    if here is not None and here != version:
        return f"it was built with {title} {version}, this machine has {here}; {_rebuild(info)}, or install {version}"
    return None


def _rebuild(info: EngineInfo) -> str:
    """The command that builds a plan again as it is, for the machine it is given on."""
    if info.precision == "unknown":
        return (
            "it was built elsewhere, and the plan cannot be built again: build from the ONNX file that it was made of, "
            "with `pysdk build NETWORK.onnx -o PLAN --engine tensorrt`"
        )
    smallest, largest = info.batches or (1, info.batch_size)
    command = f"pysdk build PLAN -o PLAN --engine tensorrt --engine auto --batch-size {info.batch_size}"
    if (smallest, largest) != (1, info.batch_size):
        command += f" --batch-profile {smallest},{info.batch_size},{largest}"
    if info.precision != "float32":
        command += f" --precision {info.precision}"
    if info.data:
        command += " --strip-weights"
    return f"build the plan again with `{command}`"


class TensorrtNetwork:
    """A loaded engine; see `pysdk.engines.contract.DeviceEngine`. Every binding has an execution context of its own.

    Args:
        library: what loaded it.
        engine: the engine.
        tensors: its inputs and output by what a plan calls them: x, t, label, output.
        log: what the library says of it.
        allocate: so many bytes on its device.
        kernels: those that its contexts compile, if they are kept.
    """

    def __init__(
        self,
        library: Library,
        engine: TensorrtEngine,
        tensors: Mapping[str, IoTensor],
        log: Log,
        allocate: Callable[[int], _native.DeviceArray],
        kernels: KernelCache | None = None,
    ) -> None:
        self.library = library
        self.engine = engine
        self.tensors = tensors
        self.log = log
        self.allocate = allocate
        self.kernels = kernels
        self._scratch: list[ref[_native.DeviceArray]] = []
        self.description = f"{library.title}, GPU"
        self._lock = threading.Lock()  # its objects are not for several threads, but for contexts that run

    @property
    def memory(self) -> int:
        """Bytes of device memory that its contexts work in, without the weights."""
        return sum(len(scratch) for found in self._scratch if (scratch := found()) is not None)

    @property
    def status(self) -> str:
        """What became of the kernels that its contexts compiled, a clause."""
        return "" if self.kernels is None else self.kernels.status

    def bind(self, buffers: DeviceBuffers) -> Callable[[int], None]:
        """One run of the network on these buffers, enqueued in the CUDA stream whose handle the result is given.

        Shapes and addresses are set here, once, so that a run may be captured into a graph after a first one that was
        not. The result keeps its context and the engine alive.

        Raises:
            EngineError: the engine does not take this batch, or there is no context to be had; later, when called: the
                run was refused.
            MemoryError: the device has no room for what a run works in.
        """
        arrays = {
            "x": buffers.network_input,
            "t": buffers.network_time,
            "label": buffers.network_labels,
            "output": buffers.network_output,
        }
        with self._lock:
            context, scratch = self._context(arrays)

        def enqueue(stream: int, _kept: object = scratch) -> None:  # nothing else keeps the memory
            if not context.execute_async_v3(stream):  # it would leave the output as it was
                raise EngineError(f"TensorRT refused to enqueue the network: {self.log.reason()}")

        return enqueue if self.kernels is None else self._saving(enqueue, self.kernels)

    def _saving(self, enqueue: Callable[[int], None], kernels: KernelCache) -> Callable[[int], None]:
        """Keeps the kernels of a context after its first run, which is the one that no graph captures."""
        ran = False

        def run(stream: int) -> None:
            nonlocal ran
            if ran:
                enqueue(stream)
                return
            with self._lock:  # no other context compiles while they are written
                enqueue(stream)
                kernels.save()
            ran = True

        return run

    def _context(self, arrays: Mapping[str, _native.DeviceArray]) -> tuple[TensorrtContext, _native.DeviceArray]:
        """A context with the shapes and addresses of these arrays, and the memory it works in."""
        context = self.library.context(self.engine, self.log, self.kernels)
        for role, tensor in self.tensors.items():
            if not tensor.is_input:
                continue
            shape = arrays[role].shape if tensor.shape else ()  # a time without axes
            if not context.set_input_shape(tensor.name, shape):
                raise EngineError(
                    f"{self.description} takes no {tensor.name!r} of shape {shape} ({self.log.reason()}); build the "
                    "plan again with `pysdk build PLAN -o PLAN --engine tensorrt` and a --batch-profile that has it"
                )
        try:
            missing = context.infer_shapes()
        except RuntimeError as error:
            raise EngineError(f"{self.description} cannot run with these shapes: {self.log.reason()}") from error
        if missing:
            raise EngineError(f"{self.description} needs the shapes of {', '.join(missing)}, which are not set")
        size = context.update_device_memory_size_for_shapes()
        scratch = self.allocate(max(size, 1))
        context.set_device_memory(scratch.pointer, size)
        self._scratch = [found for found in self._scratch if found() is not None] + [ref(scratch)]
        for role, tensor in self.tensors.items():
            if not context.set_tensor_address(tensor.name, arrays[role].pointer):
                raise EngineError(f"TensorRT does not take the memory of {tensor.name!r}: {self.log.reason()}")
        return context, scratch


def load(model: ModelInfo, info: EngineInfo, engine: memoryview, device: int, *network: memoryview) -> TensorrtNetwork:
    """The engine on the current device, number `device`; `network` is network.onnx for one without weights.

    Raises:
        MissingDependencyError: the library is not installed.
        EngineError: the device cannot run it, or it is not the network the manifest describes.
    """
    reason = unusable(info, device)
    if reason is not None:
        raise EngineError(f"the TensorRT engine cannot be used: {reason}")
    library, log = libraries.find(info.requires["library"]), Log()
    loaded = library.deserialize(engine, log)
    if network:
        library.refit(loaded, network[0])
    opened = open_device(device)
    tensors = check_io(library.io_tensors(loaded), model, info.names)
    kernels = None
    if library.compiles_when_loaded:
        gpu = cuda_driver.device(device)
        kernels = kernel_cache(engine, library.name, library.version, gpu.name, gpu.compute_capability)
    return TensorrtNetwork(library, loaded, tensors, log, lambda size: opened.empty((size,), "uint8"), kernels)


def check_io(io: Sequence[IoTensor], model: ModelInfo, names: Mapping[str, str] | None = None) -> dict[str, IoTensor]:
    """Inputs and output by their names in a plan; `names` has the engine's names for them.

    The batch may be open or fixed, the time have one value or no axis.

    Raises:
        EngineError: they are not those of the plan's network.
    """
    _, height, width = model.shape
    expected = [
        IoTensor("x", "float32", (-1, *model.shape), True),
        IoTensor("t", "float32", (1,), True),
        *([] if model.num_classes is None else [IoTensor("label", "int64", (-1,), True)]),
        IoTensor("output", "float32", (-1, model.out_channels, height, width), False),
    ]
    roles = {name: role for role, name in (names or {}).items()}
    found = {roles.get(tensor.name, tensor.name): tensor for tensor in io}
    batches = {tensor.shape[:1] for role, tensor in found.items() if role != "t"}
    fit = [tensor.name in found and _fits(found[tensor.name], tensor) for tensor in expected]
    if not (len(io) == len(found) == len(expected) and all(fit) and len(batches) == 1):
        raise EngineError(
            f"the network has {', '.join(map(str, io))}; expected {', '.join(map(str, expected))}: "
            "the manifest does not belong to it"
        )
    return {tensor.name: found[tensor.name] for tensor in expected}


def _fits(found: IoTensor, expected: IoTensor) -> bool:
    if (found.dtype, found.is_input) != (expected.dtype, expected.is_input):
        return False
    if expected.name == "t":
        return found.shape in ((), (1,), (-1,))
    return len(found.shape) == len(expected.shape) and found.shape[1:] == expected.shape[1:]
