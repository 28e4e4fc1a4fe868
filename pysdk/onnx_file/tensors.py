"""The constant tensors of an ONNX file: each has its values in the file itself, as many as its shape says.

A network that is too large for one protobuf has its large weights in the plan's `network.data`. It refers to them in
ONNX's form for external data, whose location can be nothing else.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from pysdk.onnx_file.wire import Message
from pysdk.plan.manifest import NETWORK_DATA_NAME

ALIGNMENT = 64
"""Tensors in network.data start at multiples of this many bytes."""

DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
"""The types of tensors in network.data, by number in TensorProto.DataType."""

MAX_RANK = 16

_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8}
"""The bits of a number, by type in TensorProto.DataType. Refused: text (8), complex numbers, types of 2 and 6 bits."""

_FIELDS = {1: "float_data", 7: "int64_data", 11: "double_data", 12: "uint64_data", 13: "uint64_data"}
"""Where protobuf's own numbers stand, by type; those of 32 bits and fewer in int32_data."""

_WIDTHS = {"float_data": 4, "double_data": 8}
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class Place(NamedTuple):
    """Where network.data has a tensor: in C order from byte `offset` on."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    offset: int


def check(tensor: Message, data: bytes, initializer: bool, size: int | None) -> Place | None:
    """Where network.data has a tensor of the file `data`; None if the file has its values.

    Args:
        tensor: a TensorProto.
        data: the file.
        initializer: it is one of the main graph, which alone may lie in network.data.
        size: bytes of network.data; None if there is none.

    Raises:
        ValueError: it lies elsewhere, or has more or fewer values than its shape says; the message is a clause.
    """
    who, kind, dims = f"tensor {tensor.get('name', '')[:100]!r}", tensor.get("data_type", 0), tensor.get("dims", [])
    if kind not in _BITS:
        raise ValueError(f"{who} is of type {kind}, which is not taken")
    if len(dims) > MAX_RANK or any(not 0 <= one < 1 << 40 for one in dims) or math.prod(dims) >= 1 << 40:
        raise ValueError(f"{who} has shape {dims[:10]}, which no tensor in a file has")
    if tensor.get("data_location", 0) or "external_data" in tensor:
        return _place(tensor, who, initializer, size)
    found = [name for name in ("raw_data", *_TYPED) if name in tensor]
    if len(found) > 1:
        raise ValueError(f"{who} has its values twice, in {found[0]} and {found[1]}")
    count = math.prod(dims)
    if found != ["raw_data"]:
        expected = _FIELDS.get(kind, "int32_data")
        if found and (found != [expected] or _BITS[kind] < 8):
            raise ValueError(f"{who} of type {kind} has its values in {found[0]}")
        values = _count(data, tensor, found[0]) if found else 0
        if values != count:
            raise ValueError(f"{who} has {values} values, its shape {dims[:10]} has {count}")
        return None
    given, needed = tensor["raw_data"].stop - tensor["raw_data"].start, -(-count * _BITS[kind] // 8)
    if given != needed:
        raise ValueError(f"{who} has {given} bytes, its shape {dims[:10]} has {needed}")
    return None


def _count(data: bytes, tensor: Message, name: str) -> int:
    """Numbers in packed values, which `wire` has read."""
    where: slice = tensor[name]
    size = int(where.stop - where.start)
    if name in _WIDTHS:
        return size // _WIDTHS[name]
    ends = np.frombuffer(data, np.uint8, size, where.start) < 0x80
    return int(np.count_nonzero(ends))


def _place(tensor: Message, who: str, initializer: bool, size: int | None) -> Place:
    """Where a tensor outside the file is; ValueError unless network.data has it."""
    entries: dict[str, str] = {}
    for pair in tensor.get("external_data", []):
        key, value = pair.get("key", ""), pair.get("value", "")
        if key in entries:
            raise ValueError(f"{who} has two entries {key[:100]!r} for its place")
        entries[key] = value
    location = entries.get("location", "")
    if location != NETWORK_DATA_NAME or not initializer:
        where = f"{'is in' if initializer else 'is no initializer of the graph, and in'} {location[:100]!r}"
        raise ValueError(f"{who} {where}; only initializers may be in another file, {NETWORK_DATA_NAME}")
    if size is None:
        raise ValueError(f"{who} is in {NETWORK_DATA_NAME}, which the plan does not give to the engine")
    values = [name for name in ("raw_data", *_TYPED) if name in tensor]
    if set(entries) != {"location", "offset", "length"} or not tensor.get("data_location", 0) or values:
        found = [key[:100] for key in [*sorted(entries), *values][:10]]
        raise ValueError(f"{who} has {found} for its place, expected location, offset and length")
    if tensor["data_type"] not in DTYPES:
        raise ValueError(f"{who} is of type {tensor['data_type']}, which {NETWORK_DATA_NAME} does not hold")
    dtype, shape = np.dtype(DTYPES[tensor["data_type"]]), tuple(tensor.get("dims", ()))
    offset, length = (_number(entries[key], f"the {key} of {who}") for key in ("offset", "length"))
    if length != math.prod(shape) * dtype.itemsize or length == 0:
        raise ValueError(
            f"{who} has {length} bytes in {NETWORK_DATA_NAME}, its shape {list(shape[:10])} has another size"
        )
    if offset % ALIGNMENT:
        raise ValueError(f"the offset of {who} is {offset}, expected a multiple of {ALIGNMENT}")
    if offset + length > size:
        raise ValueError(f"{who} ends at byte {offset + length} of {NETWORK_DATA_NAME}, which has {size}")
    return Place(dtype, shape, offset)


def _number(text: str, what: str) -> int:
    if re.fullmatch(r"0|[1-9][0-9]{0,14}", text, re.ASCII) is None:
        raise ValueError(f"{what} is {text[:100]!r}, expected a number of bytes")
    return int(text)
