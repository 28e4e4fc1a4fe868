"""A program as files: JSON, whose weights lie in network.onnx wherever that holds them already, else in constants.

native.json        {"version": 1, "tensors": [...], "weights": [...], "ops": [...]}
native.constants   float32, little-endian, each piece at a multiple of 64 bytes
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pysdk.export.native.program import AnyOp, Program, Tensor

from pysdk.engines.native import SOURCES, VERSION, Head, PieceInfo, TensorInfo, WeightInfo

ALIGNMENT = 64
_FLOAT = 1  # TensorProto.DataType.FLOAT


def pack(program: Program, network: bytes) -> tuple[bytes, bytes]:
    """native.json and native.constants of a program whose plan has `network` as network.onnx."""
    packer = _Packer(network)
    weights = tuple(
        WeightInfo(program.shape(index), tuple(packer.place(piece) for piece in pieces))
        for index, pieces in enumerate(program.weights)
    )
    tensors = tuple(TensorInfo(*msgspec.structs.astuple(tensor)) for tensor in program.tensors)
    head = Head(VERSION, tensors, weights, tuple(msgspec.to_builtins(op) for op in program.ops))
    packer.align()
    return msgspec.json.encode(head), bytes(packer.constants) or bytes(ALIGNMENT)


def unpack(head: bytes | memoryview, network: bytes | memoryview, constants: bytes | memoryview) -> Program:
    """The program of these files, as `pack` wrote them."""
    found = msgspec.json.decode(head, type=Head)
    files = dict(zip(SOURCES, (memoryview(network), memoryview(constants)), strict=True))

    def read(piece: PieceInfo) -> NDArray[np.float32]:
        count = int(np.prod(piece.shape))
        values: NDArray[np.float32] = np.frombuffer(files[piece.source], "<f4", count, piece.offset)
        if not piece.transposed:
            return values.reshape(piece.shape)
        stored = values.reshape(count // piece.shape[0], piece.shape[0])
        return np.transpose(stored).reshape(piece.shape)

    return Program(
        [Tensor(*msgspec.structs.astuple(tensor)) for tensor in found.tensors],
        [tuple(read(piece) for piece in weight.parts) for weight in found.weights],
        [msgspec.convert(op, AnyOp) for op in found.ops],
    )


class _Packer:
    """Places pieces of weights, each value once."""

    def __init__(self, network: bytes) -> None:
        self.network = network
        self.constants = bytearray()
        self.places: dict[int, list[int]] = {}
        for offset, size in raw_floats(memoryview(network)):
            self.places.setdefault(size, []).append(offset)
        self.added: dict[bytes, int] = {}

    def place(self, piece: NDArray[np.float32]) -> PieceInfo:
        """Where a piece is, or is put now."""
        data = little_endian(piece)
        offset = self.find(data)
        if offset is not None:
            return PieceInfo("network", offset, piece.shape, False)
        if piece.size == len(piece) * (piece.shape[1] if piece.ndim > 1 else 1) and piece.ndim > 1:  # a matrix
            offset = self.find(little_endian(piece.reshape(piece.shape[:2]).T))
            if offset is not None:
                return PieceInfo("network", offset, piece.shape, True)
        if data not in self.added:
            self.align()
            self.added[data] = len(self.constants)
            self.constants += data
        return PieceInfo("constants", self.added[data], piece.shape, False)

    def find(self, data: bytes) -> int | None:
        """Offset of the tensor of network.onnx that has exactly these bytes."""
        for offset in self.places.get(len(data), ()):
            if self.network.startswith(data, offset):  # compares in place
                return offset
        return None

    def align(self) -> None:
        """Fill up to the next multiple of `ALIGNMENT`."""
        self.constants += bytes(-len(self.constants) % ALIGNMENT)


def little_endian(values: NDArray[Any]) -> bytes:
    """float32 bytes in C order."""
    return np.ascontiguousarray(values, "<f4").tobytes()


def raw_floats(model: memoryview) -> Iterator[tuple[int, int]]:
    """(offset, size) in bytes of the float32 values of a model's initializers, as protobuf lays them out."""
    graphs = (value for number, value in fields(model, 0, len(model)) if number == 7)  # ModelProto.graph
    for graph in graphs:
        for number, value in fields(model, *bounds(graph)):
            if number == 5:  # GraphProto.initializer
                tensor = dict(fields(model, *bounds(value)))
                if tensor.get(2) == _FLOAT and 9 in tensor:  # TensorProto.data_type, raw_data
                    start, stop = bounds(tensor[9])
                    yield start, stop - start


def bounds(value: int | tuple[int, int]) -> tuple[int, int]:
    """Start and end of a field that has bytes."""
    if isinstance(value, int):
        raise ValueError("expected bytes in a protobuf field, found a number")
    return value


def fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """(number, value) of a protobuf message's fields; what has bytes is given by (start, end)."""
    while start < stop:
        key, start = varint(data, start)
        kind = key & 7
        if kind == 0:
            value, start = varint(data, start)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind)
        if size is None:
            if kind != 2:
                raise ValueError(f"protobuf wire type {kind} is not used by ONNX")
            size, start = varint(data, start)
        if start + size > stop:
            raise ValueError("a protobuf field ends behind its message")
        yield key >> 3, (start, start + size)
        start += size


def varint(data: memoryview, start: int) -> tuple[int, int]:
    """A number of variable length and the offset behind it."""
    value = shift = 0
    while True:
        byte = data[start]
        value |= (byte & 0x7F) << shift
        start += 1
        shift += 7
        if byte < 0x80:
            return value, start
