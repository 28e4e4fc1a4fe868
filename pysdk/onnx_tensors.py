"""Where an ONNX file has its tensors, read from its bytes: whoever loads it might open what a stranger wrote in it.

A network that is too large for one protobuf has its large weights in the plan's `network.data`. They are named there
in ONNX's form for external data, whose location can be nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import EngineError
from pysdk.manifest import NETWORK_DATA_NAME

ALIGNMENT = 64
DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
"""Of tensors in network.data, by their number in TensorProto.DataType."""

Field = int | tuple[int, int]
"""A number, or where bytes start and end."""

# What tensors can be in: a message, the number of its field, and what message that is.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "main graph", 20: "training", 25: "function"},
    "main graph": {1: "node", 5: "initializer", 15: "sparse tensor"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_NAME, _DIMS, _TYPE, _EXTERNAL_DATA, _DATA_LOCATION = 8, 1, 2, 13, 14


class Place(NamedTuple):
    """Where network.data has a tensor: in C order from byte `offset` on."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int


def stored(network: bytes | memoryview, data: memoryview | None) -> dict[str, NDArray[np.generic]]:
    """The tensors of an ONNX file that `data` has, by name, as arrays on its memory. Errors as `places`."""
    found = places(network, None if data is None else len(data))
    if data is None:
        return {}
    return {
        name: np.frombuffer(data, place.dtype, math.prod(place.shape), place.offset).reshape(place.shape)
        for name, place in found.items()
    }


def places(network: bytes | memoryview, size: int | None) -> dict[str, Place]:
    """Where network.data has the tensors of an ONNX file, by name.

    Args:
        network: the file.
        size: bytes of network.data; None if there is none.

    Raises:
        EngineError: a tensor is anywhere else than in the file itself or in network.data, is not wholly in it, or has
            another size than its shape.
    """
    # every tensor outside has this word in it, and few files without such tensors do
    if re.search(rb"location", network) is None:
        return {}
    found: dict[str, Place] = {}
    try:
        for kind, start, stop in _tensors(memoryview(network)):
            tensor = _outside(memoryview(network), start, stop)
            if tensor is None:
                continue
            place = _place(tensor, kind == "initializer", size)
            if tensor.name in found:
                raise EngineError(f"the network has two tensors {tensor.name[:100]!r} in {NETWORK_DATA_NAME}")
            found[tensor.name] = place
    except (ValueError, IndexError) as error:
        raise EngineError(f"the network is not an ONNX file, or damaged: {error}") from None
    return found


def _tensors(model: memoryview) -> Iterator[tuple[str, int, int]]:
    """Every tensor wherever it is: "initializer" for those of the main graph, else "tensor", and its bytes."""
    open_ = [("model", 0, len(model))]
    while open_:
        kind, start, stop = open_.pop()
        for number, value in fields(model, start, stop):
            inside = _MESSAGES[kind].get(number)
            if inside in ("initializer", "tensor"):
                yield inside, *bounds(value)
            elif inside is not None:
                open_.append((inside, *bounds(value)))


class _Outside(NamedTuple):
    """A TensorProto that has no values itself, as it stands in the file."""

    name: str
    kind: int
    shape: list[int]
    entries: dict[str, str]
    marked: bool


def _outside(model: memoryview, start: int, stop: int) -> _Outside | None:
    """A TensorProto, None if it has its values itself."""
    name, kind, marked = "", -1, False
    shape: list[int] = []
    entries: dict[str, str] = {}
    for field, value in fields(model, start, stop):
        if field == _DIMS:
            shape += [value] if isinstance(value, int) else varints(model, *value)
        elif field == _TYPE and isinstance(value, int):
            kind = value
        elif field == _NAME:
            name = _text(model, value)
        elif field == _EXTERNAL_DATA:
            pair = dict(fields(model, *bounds(value)))
            key = _text(model, pair.get(1, (0, 0)))
            if key in entries:
                raise EngineError(f"tensor {name[:100]!r} of the network has two entries {key[:100]!r}")
            entries[key] = _text(model, pair.get(2, (0, 0)))
        elif field == _DATA_LOCATION:
            marked = value != 0
    return _Outside(name, kind, shape, entries, marked) if marked or entries else None


def _place(tensor: _Outside, is_initializer: bool, size: int | None) -> Place:
    """Where a tensor is; EngineError unless network.data has it."""
    who, entries = f"tensor {tensor.name[:100]!r} of the network", tensor.entries
    location = entries.get("location", "")
    if location != NETWORK_DATA_NAME or not is_initializer:
        where = f"{'is in' if is_initializer else 'is no initializer of the graph, and in'} {location[:100]!r}"
        raise EngineError(f"{who} {where}; only initializers may be in another file, {NETWORK_DATA_NAME}")
    if size is None:
        raise EngineError(f"{who} is in {NETWORK_DATA_NAME}, which the plan does not give to the engine")
    if set(entries) != {"location", "offset", "length"} or not tensor.marked:
        found = [key[:100] for key in sorted(entries)[:10]]
        raise EngineError(f"{who} has {found} for its place, expected location, offset and length")
    if tensor.kind not in DTYPES:
        raise EngineError(f"{who} is of type {tensor.kind}, which {NETWORK_DATA_NAME} does not hold")
    dtype = np.dtype(DTYPES[tensor.kind])
    offset, length = (_number(entries[key], f"the {key} of {who}") for key in ("offset", "length"))
    if length != math.prod(tensor.shape) * dtype.itemsize or length == 0:
        raise EngineError(
            f"{who} has {length} bytes in {NETWORK_DATA_NAME}, its shape {tensor.shape[:10]} has another size"
        )
    if offset % ALIGNMENT:
        raise EngineError(f"the offset of {who} is {offset}, expected a multiple of {ALIGNMENT}")
    if offset + length > size:
        raise EngineError(f"{who} ends at byte {offset + length} of {NETWORK_DATA_NAME}, which has {size}")
    return Place(dtype, tuple(tensor.shape), offset)


def _text(model: memoryview, value: Field) -> str:
    start, stop = bounds(value)
    return bytes(model[start:stop]).decode()


def _number(text: str, what: str) -> int:
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise EngineError(f"{what} is {text[:100]!r}, expected a number of bytes")
    return int(text)


def bounds(value: Field) -> tuple[int, int]:
    """Start and end of a field that has bytes."""
    if isinstance(value, int):
        raise ValueError("expected bytes in a protobuf field, found a number")
    return value


def fields(data: memoryview, start: int, stop: int) -> Iterator[tuple[int, Field]]:
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


def varints(data: memoryview, start: int, stop: int) -> list[int]:
    """Numbers of variable length, one behind the other."""
    found = []
    while start < stop:
        value, start = varint(data, start)
        found.append(value)
    return found


def varint(data: memoryview, start: int) -> tuple[int, int]:
    """A number of variable length and the offset behind it."""
    value = shift = 0
    while shift < 70:  # ten bytes are 64 bits
        byte = data[start]
        value |= (byte & 0x7F) << shift
        start += 1
        shift += 7
        if byte < 0x80:
            return value, start
    raise ValueError("a protobuf number has more than ten bytes")
