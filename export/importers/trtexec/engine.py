"""Makes a foreign TensorRT engine the only engine of a plan, with its inputs and outputs as they are.

Nothing can be put around an engine, so what a plan holds has to have a chain's own form: `x` float32 (batch, C, H, W),
`t` float32 () or (1,), `label` int64 (batch,), output float32 (batch, C or 2C, H, W), under any names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pysdk.engines.tensorrt.engine import MEMBER, check_io
from pysdk.engines.tensorrt.libraries import IoTensor
from pysdk.errors import CheckpointError
from pysdk.export.importers.onnx.find_roles import find_roles, find_shape
from pysdk.export.importers.onnx.options import OnnxOptions, plan_parts
from pysdk.export.lowering.tensor_roles import Port, TensorRoles
from pysdk.export.network import Finished, Network
from pysdk.plan.manifest import EngineInfo

MAX_BATCH = 65_536
"""That of a plan."""

INSTEAD = "build from the ONNX file it was made of instead: `pysdk build NETWORK.onnx --engine tensorrt`"

Batches = tuple[int, int, int]


@dataclass(frozen=True)
class EngineFile:
    """What a library says of an engine that it has loaded.

    Attributes:
        library, version: "tensorrt" or "tensorrt_rtx", and its version.
        compute_capability: that of the GPU it was loaded on, e.g. "9.0".
        io: inputs and outputs.
        batches: for inputs with axes, smallest, usual and largest size of the first axis.
    """

    library: str
    version: str
    compute_capability: str
    io: tuple[IoTensor, ...]
    batches: Mapping[str, Batches]


def network_of(file: EngineFile, data: bytes, told: OnnxOptions) -> Network:
    """A network with nothing but this engine, whose bytes are `data`.

    Raises:
        CheckpointError: its inputs or output are not what a chain has; the message says which and why.
        OptionError: several could be meant, or an option contradicts it.
    """
    found = {tensor.name: tensor for tensor in file.io}
    outputs = [tensor.name for tensor in file.io if not tensor.is_input]
    roles = find_roles([_port(tensor) for tensor in file.io if tensor.is_input], outputs, told)
    smallest, usual, largest = _batches(file, roles)
    for reason in _obstacles(found, roles, file.batches, smallest, largest):
        raise CheckpointError(f"the engine has {', '.join(map(str, file.io))}: {reason}; {INSTEAD}")
    shape = find_shape(_port(found[roles.x]), roles, told)
    model, schedule, defaults = plan_parts(
        told, shape, found[roles.output].shape[1], description="Imported from a TensorRT engine."
    )
    called = {"x": roles.x, "t": roles.t, "label": roles.label, "output": roles.output}
    names = {role: name for role, name in called.items() if name not in (role, None)}
    check_io(file.io, model, names)
    info = EngineInfo(
        kind="tensorrt",
        member=MEMBER,
        precision="unknown",
        batch_size=usual,
        batches=(smallest, largest),
        names=names,
        requires={
            "library": file.library,
            "version": file.version,
            "compute_capability": file.compute_capability,
        },
        notes=f"built elsewhere, not compared; batches of {smallest} to {largest}, fastest at {usual}",
    )
    return Network(None, model, schedule, defaults, engine=Finished(info, {MEMBER: data}))


def _port(tensor: IoTensor) -> Port:
    """With names for open axes, as an ONNX file has them."""
    return Port(tensor.name, tensor.dtype, tuple(None if size == -1 else size for size in tensor.shape))


def _batches(file: EngineFile, roles: TensorRoles) -> Batches:
    """Smallest, usual and largest batch that image and label both take; the first is above the last if none."""
    ranges = [file.batches[name] for name in (roles.x, roles.label) if name is not None and name in file.batches]
    smallest, largest = max(low for low, _, _ in ranges), min(MAX_BATCH, *(high for _, _, high in ranges))
    return smallest, min(max(ranges[0][1], smallest), largest), largest


def _obstacles(
    found: Mapping[str, IoTensor], roles: TensorRoles, batches: Mapping[str, Batches], smallest: int, largest: int
) -> Iterator[str]:
    """Why a chain cannot use the engine, the plainest reason first."""
    x, t, output = found[roles.x], found[roles.t], found[roles.output]
    label = None if roles.label is None else found[roles.label]
    if roles.channels_last:
        yield f"{x.name!r} has its channels last, a chain has them first"
    wanted = [(x, "float32", "an image"), (t, "float32", "its time"), (output, "float32", "an output")]
    for tensor, dtype, what in [*wanted, *([] if label is None else [(label, "int64", "labels")])]:
        if tensor.dtype != dtype:
            yield f"{tensor.name!r} is {tensor.dtype}, a chain has {what} in {dtype}"
    if len(t.shape) > 1 or (t.shape and not batches[t.name][0] <= 1 <= batches[t.name][2]):
        yield f"{t.name!r} has {batches[t.name][0]} values or more, a chain has one for all images"
    elif roles.time_shape == "batch" and largest > 1:
        yield f"{t.name!r} has a value for each image, a chain has one for all (if one will do, say --t_shape one)"
    if -1 in x.shape[1:] or -1 in output.shape[1:]:
        yield "it leaves open more than the batch, a plan has images of one size"
    if len(output.shape) != 4 or output.shape[2:] != x.shape[2:]:
        yield f"{output.name!r} is no image of the size of {x.name!r}"
    if label is not None and len(label.shape) != 1:
        yield f"{label.name!r} has {len(label.shape)} axes, a chain has one label for each image"
    if smallest > largest or len({tensor.shape[:1] for tensor in (x, output, label or x)}) != 1:
        yield "image, label and output have different batches"
