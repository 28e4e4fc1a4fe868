"""TensorRT on an NVIDIA GPU: an engine of `pysdk build --engine tensorrt`, enqueued in the device chain's stream.

`EngineInfo.requires` names the library ("tensorrt" or "tensorrt_rtx"), its version and the compute capabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from pysdk import cuda_driver, tensorrt_library
from pysdk.engines import Buffers
from pysdk.errors import EngineError
from pysdk.manifest import EngineInfo, ModelInfo
from pysdk.tensorrt_library import TITLES, IoTensor, Library, TensorrtEngine

REBUILD = "build the plan again with `pysdk build ... --engine tensorrt`"

WITHOUT_CHAIN: str | None = "this version of pysdk runs chains on the CPU only, and TensorRT writes to a GPU's memory"
"""Why nothing can run the engine yet, however right the machine is. It becomes None, and this is all that changes here,
when `pysdk.executor` binds engines to the buffers of a `_native.CudaChain` (see `TensorrtNetwork.enqueue_on`)."""


class DeviceArray(Protocol):
    """Memory of the device."""

    @property
    def pointer(self) -> int:
        """Its address."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""


class DeviceBuffers(Protocol):
    """The network's side of a device chain, with the shapes and dtypes of `pysdk.engines.Buffers`."""

    @property
    def network_input(self) -> DeviceArray: ...

    @property
    def network_time(self) -> DeviceArray: ...

    @property
    def network_labels(self) -> DeviceArray: ...

    @property
    def network_output(self) -> DeviceArray: ...


def unusable(info: EngineInfo) -> str | None:
    """Why this machine cannot run such an engine, or None if it can. Loads nothing but the NVIDIA driver."""
    name, version = info.requires.get("library", ""), info.requires.get("version", "")
    if name not in TITLES:
        return f"it does not say which TensorRT it needs; {REBUILD}"
    title = TITLES[name]
    if name not in tensorrt_library.installed():
        command = tensorrt_library.install_command(name, version)
        return f"it needs {title} {version}, which is not installed; get it with `{command}`"
    here = tensorrt_library.installed_version(name)
    if here is not None and here != version:
        return f"it was built with {title} {version}, this machine has {here}; {REBUILD}, or install {version}"
    try:
        device = cuda_driver.device()
    except EngineError as error:
        return str(error)
    capabilities = info.requires.get("compute_capability", "").split()
    if capabilities and device.compute_capability not in capabilities:
        return (
            f"it was built for compute capability {', '.join(capabilities)}, the {device.name} of this machine has "
            f"{device.compute_capability}; {REBUILD}"
        )
    return WITHOUT_CHAIN


class TensorrtNetwork:
    """A loaded engine. Each chain gets its own execution context, so several can run at once.

    Args:
        library: what loaded it.
        engine: the engine.
        inputs: the names of the tensors it reads.
    """

    def __init__(self, library: Library, engine: TensorrtEngine, inputs: tuple[str, ...]) -> None:
        self.library = library
        self.engine = engine
        self.inputs = inputs
        self.description = f"{library.title}, GPU"

    def bind(self, buffers: Buffers) -> Callable[[], object]:
        """Never: the buffers of `pysdk.engines.Engine` are in the memory of the CPU."""
        raise EngineError(f"{self.description} cannot be bound to memory of the CPU")

    def enqueue_on(self, buffers: DeviceBuffers) -> Callable[[int], bool]:
        """One run of the network on these buffers, enqueued in the CUDA stream whose handle the result is given.

        That is what `_native.CudaChain.attach` takes. Shapes and addresses are set here, once, so that a run may be
        captured into a graph after a first one that was not; the result keeps its context and engine alive.

        Raises:
            EngineError: the engine has no profile for this batch, or no room on the device; later, when called: the
                run was refused.
        """
        context = self.library.context(self.engine)
        arrays: Mapping[str, DeviceArray] = {
            "x": buffers.network_input,
            "t": buffers.network_time,
            "label": buffers.network_labels,
        }
        for name in self.inputs:
            if not context.set_input_shape(name, arrays[name].shape):
                raise EngineError(
                    f"{self.description} takes no {name!r} of shape {arrays[name].shape}: it is outside of the batches "
                    f"it was built for; {REBUILD} and --batch-profile"
                )
        missing = context.infer_shapes()
        if missing:
            raise EngineError(f"{self.description} needs the shapes of {', '.join(missing)}, which are not set")
        for name in self.inputs:
            _set_address(context, name, arrays[name])
        _set_address(context, "output", buffers.network_output)

        def enqueue(stream: int) -> bool:
            if not context.execute_async_v3(stream):  # it would leave the output as it was
                raise EngineError("TensorRT refused to enqueue the network")
            return True

        return enqueue


def load(model: ModelInfo, info: EngineInfo, engine: memoryview, threads: int, *network: memoryview) -> TensorrtNetwork:
    """The engine on the current device; `network` is network.onnx for one without weights.

    Raises:
        MissingDependencyError: the library is not installed.
        EngineError: this machine cannot run it, or it is not the network the manifest describes.
    """
    reason = unusable(info)
    if reason is not None:
        raise EngineError(f"the TensorRT engine cannot be used: {reason}")
    library = tensorrt_library.find(info.requires["library"])
    loaded = library.deserialize(engine)
    if network:
        library.refit(loaded, network[0])
    io = library.io_tensors(loaded)
    check_io(io, model)
    return TensorrtNetwork(library, loaded, tuple(tensor.name for tensor in io if tensor.is_input))


def check_io(io: list[IoTensor], model: ModelInfo) -> None:
    """EngineError unless these are the inputs and outputs of the plan's network, as every engine of a plan has them."""
    _, height, width = model.shape
    expected = [
        IoTensor("x", "float32", (-1, *model.shape), True),
        IoTensor("t", "float32", (1,), True),
        *([] if model.num_classes is None else [IoTensor("label", "int64", (-1,), True)]),
        IoTensor("output", "float32", (-1, model.out_channels, height, width), False),
    ]
    if {tensor.name: tensor for tensor in io} != {tensor.name: tensor for tensor in expected}:
        raise EngineError(
            f"the network has {', '.join(map(str, io))}; expected {', '.join(map(str, expected))}: "
            "the manifest does not belong to it"
        )


def _set_address(context: tensorrt_library.TensorrtContext, name: str, array: DeviceArray) -> None:
    if not context.set_tensor_address(name, array.pointer):
        raise EngineError(f"TensorRT does not take the memory of {name!r}")
