"""ONNX files built byte by byte, so that they can be written as no protobuf library would."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, helper


def varint(value: int, size: int = 0) -> bytes:
    """A number of variable length, in at least `size` bytes."""
    out = []
    value = value & (1 << 64) - 1 if value < 0 else value
    while True:
        value, low = value >> 7, value & 0x7F
        if not value and len(out) + 1 >= size:
            return bytes([*out, low])
        out.append(low | 0x80)


def number(field: int, value: int, size: int = 0) -> bytes:
    """A field with a number."""
    return varint(field << 3) + varint(value, size)


def piece(field: int, data: bytes, *, tag: bytes | None = None, size: int = 0) -> bytes:
    """A field with bytes."""
    return (varint(field << 3 | 2) if tag is None else tag) + varint(len(data), size) + data


HIDDEN = {field: varint(field << 3 | 2 | 1 << 33) for field in range(1, 30)}
"""Tags of five bytes: C++ reads 32 bits of them, a careful reader a number that it does not know."""


def tensor(*fields: bytes, **changes: Any) -> bytes:
    """A TensorProto of four numbers and more fields behind them."""
    plain = TensorProto(**{"name": "w", "data_type": 1, "dims": [4], "raw_data": bytes(16), **changes})
    return bytes(plain.SerializeToString()) + b"".join(fields)


def outside(location: str = "secret.txt", **changes: Any) -> bytes:
    """A TensorProto whose four numbers are in a file."""
    found = TensorProto(**{"name": "w", "data_type": 1, "dims": [4], "data_location": 1, **changes})
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        found.external_data.add(key=key, value=value)
    return bytes(found.SerializeToString())


def add_node(*attributes: bytes, operator: str = "Add") -> bytes:
    """output = x + w."""
    plain = helper.make_node(operator, ["x", "w"], ["output"])
    return bytes(plain.SerializeToString()) + b"".join(piece(5, attribute) for attribute in attributes)


def graph(*initializers: bytes, nodes: tuple[bytes, ...] = (), more: bytes = b"") -> bytes:
    """A graph of the form a plan keeps, its initializers whole fields."""
    values = [("x", ["batch", 1, 2, 2]), ("t", [1])]
    inputs = [piece(11, helper.make_tensor_value_info(name, 1, shape).SerializeToString()) for name, shape in values]
    output = piece(12, helper.make_tensor_value_info("output", 1, ["batch", 1, 2, 2]).SerializeToString())
    found = nodes or (add_node(),)
    return b"".join([*(piece(1, node) for node in found), piece(2, b"g"), *initializers, *inputs, output, more])


def model(inside: bytes, *, before: bytes = b"", behind: bytes = b"", opset: bytes | None = None) -> bytes:
    """A model around the bytes of a graph."""
    versions = piece(8, number(2, 18)) if opset is None else opset
    return number(1, 8) + before + piece(7, inside) + versions + behind


def attribute(name: str, kind: int, *fields: bytes) -> bytes:
    """An AttributeProto, its fields in order."""
    return piece(1, name.encode()) + b"".join(fields) + varint(20 << 3) + varint(kind)


WEIGHT = tensor(dims=[1, 1, 2, 2])
PLAIN = model(graph(piece(5, WEIGHT)))
"""The network that is attacked: x plus four zeros."""
