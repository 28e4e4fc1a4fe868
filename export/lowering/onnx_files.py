"""A network as a plan's files: network.onnx and, if one protobuf cannot hold it, network.data beside it.

While a plan is built, network.data is a temporary file without a name, mapped: the system can take its memory back.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
from numpy.typing import NDArray
from onnx import TensorProto

from pysdk.errors import ExportError
from pysdk.onnx_file.tensors import ALIGNMENT, DTYPES
from pysdk.plan.manifest import NETWORK_DATA_NAME, NETWORK_NAME

MAX_BYTES = 2**31 - 1
"""The most bytes that one protobuf can have."""

SMALLEST = 1024
"""Tensors of fewer bytes stay in the graph, where whoever loads it looks for shapes and axes."""

_GRAPH_BYTES = 1 << 26
"""What is left for the nodes of a graph."""


@dataclass(frozen=True)
class OnnxFiles:
    """A network's files.

    Attributes:
        graph: network.onnx.
        weights: network.data; None if the graph has all its weights.
    """

    graph: bytes
    weights: memoryview | None = None

    @property
    def beside(self) -> dict[str, memoryview]:
        """What an engine reads besides network.onnx, by its name in the plan."""
        return {} if self.weights is None else {NETWORK_DATA_NAME: self.weights}

    @property
    def members(self) -> dict[str, bytes | memoryview]:
        """What goes into the plan."""
        return {NETWORK_NAME: self.graph, **self.beside}

    @property
    def size(self) -> int:
        """Bytes of all."""
        return sum(map(len, self.members.values()))


def is_large(weight_bytes: int) -> bool:
    """Whether a network with so many bytes of weights needs network.data."""
    return weight_bytes > MAX_BYTES - _GRAPH_BYTES


class WeightsFile:
    """network.data while it is written. ExportError if there is no room for it."""

    def __init__(self) -> None:
        self._size = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="pysdk-")  # noqa: SIM115  # `mapped` closes it
        except OSError as error:
            raise _no_room(error) from error

    def add(self, values: NDArray[np.generic]) -> tuple[int, int]:
        """Write a tensor; its offset and its bytes."""
        plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        padding = -self._size % ALIGNMENT
        try:
            self._file.write(bytes(padding))
            self._file.write(plain.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _no_room(error) from error
        offset = self._size + padding
        self._size = offset + plain.nbytes
        return offset, plain.nbytes

    def mapped(self) -> memoryview | None:
        """All that was written; the file is gone when nothing uses this any more. None if that is nothing."""
        try:
            self._file.flush()
            with self._file as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) if self._size else None
        except OSError as error:
            raise _no_room(error) from error


def _no_room(error: OSError) -> ExportError:
    return ExportError(
        f"cannot keep the weights in a temporary file in {tempfile.gettempdir()!r} ({error.strerror or error}); set "
        "TMPDIR to a folder with room for them"
    )


def from_module(model: onnx_ir.Model, finish: Callable[[onnx.ModelProto], onnx.ModelProto]) -> OnnxFiles:
    """The files of a large network as torch.onnx lowered it; `finish` gets the graph without the weights.

    The weights are written from the module's own memory, and `model` refers to network.data afterwards.
    """
    file = WeightsFile()
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < SMALLEST or int(tensor.dtype) not in DTYPES:
            continue
        offset, length = file.add(tensor.numpy())
        value.const_value = onnx_ir.ExternalTensor(
            NETWORK_DATA_NAME,
            offset,
            length,
            tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=value.name or "",
        )
    graph = finish(onnx_ir.serde.serialize_model(model)).SerializeToString()
    return OnnxFiles(bytes(graph), file.mapped())


def move_out(tensor: TensorProto, values: NDArray[np.generic], file: WeightsFile) -> None:
    """Put the values of a tensor of a graph into network.data."""
    offset, length = file.add(values)
    name, kind, dims = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = name, kind, TensorProto.EXTERNAL
    tensor.dims.extend(dims)
    for key, value in (("location", NETWORK_DATA_NAME), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
