"""A program as files: JSON that finds its weights in network.onnx or network.data if they are there, else in constants.

native.json        {"version": 1, "tensors": [...], "weights": [...], "ops": [...]}
native.constants   float32, little-endian, each piece at a multiple of 64 bytes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pysdk.engines.native import SOURCES, VERSION, Head, PieceInfo, Source, TensorInfo, WeightInfo
from pysdk.export.engines.native.program import AnyOp, Program, Tensor
from pysdk.onnx_file.model import OnnxFile, read

ALIGNMENT = 64
_FLOAT = 1  # TensorProto.DataType.FLOAT
_FIRST = 256


def pack(program: Program, network: bytes, data: memoryview | None = None) -> tuple[bytes, bytes]:
    """native.json and native.constants of a program; `network` and `data` are network.onnx and network.data."""
    packer = _Packer(network, data)
    weights = tuple(
        WeightInfo(program.shape(index), tuple(packer.place(piece) for piece in pieces))
        for index, pieces in enumerate(program.weights)
    )
    tensors = tuple(TensorInfo(*msgspec.structs.astuple(tensor)) for tensor in program.tensors)
    head = Head(VERSION, tensors, weights, tuple(msgspec.to_builtins(op) for op in program.ops))
    packer.align()
    return msgspec.json.encode(head), bytes(packer.constants) or bytes(ALIGNMENT)


def unpack(head: bytes | memoryview, *sources: bytes | memoryview) -> Program:
    """The program of these files, as `pack` wrote them; `sources` in the order of `SOURCES`."""
    found = msgspec.json.decode(head, type=Head)
    files = {name: memoryview(data) for name, data in zip(SOURCES, sources, strict=False)}

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

    def __init__(self, network: bytes, data: memoryview | None) -> None:
        self.files: dict[Source, NDArray[np.uint8]] = {"network": np.frombuffer(network, np.uint8)}
        self.constants = bytearray()
        self.places: dict[int, list[tuple[Source, int]]] = {}
        file = read(network, None if data is None else len(data))
        for offset, size in raw_floats(file):
            self.places.setdefault(size, []).append(("network", offset))
        if data is not None:
            self.files["data"] = np.frombuffer(data, np.uint8)
            for place in file.places.values():
                if place.dtype == np.float32:
                    size = 4 * math.prod(place.shape)
                    self.places.setdefault(size, []).append(("data", place.offset))
        self.added: dict[bytes, int] = {}

    def place(self, piece: NDArray[np.float32]) -> PieceInfo:
        """Where a piece is, or is put now."""
        data = little_endian(piece)
        place = self.find(data)
        if place is not None:
            return PieceInfo(*place, piece.shape, False)
        if piece.size == len(piece) * (piece.shape[1] if piece.ndim > 1 else 1) and piece.ndim > 1:  # a matrix
            place = self.find(little_endian(piece.reshape(piece.shape[:2]).T))
            if place is not None:
                return PieceInfo(*place, piece.shape, True)
        if data not in self.added:
            self.align()
            self.added[data] = len(self.constants)
            self.constants += data
        return PieceInfo("constants", self.added[data], piece.shape, False)

    def find(self, data: bytes) -> tuple[Source, int] | None:
        """File and offset of the tensor that has exactly these bytes."""
        wanted = np.frombuffer(data, np.uint8)
        for source, offset in self.places.get(len(data), ()):
            there = self.files[source][offset : offset + len(data)]
            # most differ in the first bytes already
            if np.array_equal(there[:_FIRST], wanted[:_FIRST]) and np.array_equal(there, wanted):
                return source, offset
        return None

    def align(self) -> None:
        """Fill up to the next multiple of `ALIGNMENT`."""
        self.constants += bytes(-len(self.constants) % ALIGNMENT)


def little_endian(values: NDArray[Any]) -> bytes:
    """float32 bytes in C order."""
    return np.ascontiguousarray(values, "<f4").tobytes()


def raw_floats(file: OnnxFile) -> Iterator[tuple[int, int]]:
    """(offset, size) in bytes of the float32 values of a model's initializers, as protobuf lays them out."""
    for tensor in file.model["graph"].get("initializer", ()):
        if tensor.get("data_type") == _FLOAT and "raw_data" in tensor:
            yield tensor["raw_data"].start, tensor["raw_data"].stop - tensor["raw_data"].start
