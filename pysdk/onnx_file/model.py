"""An ONNX file, read and checked: nothing in it names a file, and everything has the size it claims."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import EngineError
from pysdk.onnx_file import tensors, wire
from pysdk.onnx_file.tensors import Place
from pysdk.onnx_file.wire import Message

MAX_BYTES = 2**31 - 1
"""The most bytes that one protobuf can have."""

CANONICAL = 'a file of yours becomes one with `python -c \'import onnx; onnx.save(onnx.load("X.onnx"), "Y.onnx")\'`'
"""Added to messages where people give their own files."""

READS_FILES = {"EPContext"}
"""Operators whose attributes name files."""

RUNTIME_SETTINGS = "ort_config"
"""The entry of metadata_props in which ONNX Runtime may look for options of its session."""

_VALUES = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors", 10: "graphs"}
_VALUES |= {13: "tp", 14: "type_protos"}
"""Where an attribute has its value, by its type in AttributeProto.AttributeType."""

_SINGLE = {1, 2, 3, 4, 5, 13}

OPSETS = "opset_import"

Messages: TypeAlias = dict[str, list[Message]]


@dataclass(frozen=True)
class OnnxFile:
    """A file that was read completely.

    Attributes:
        data: the file; give ONNX Runtime these bytes, and none that were not read.
        model: its ModelProto.
        messages: all messages in it, by kind.
        places: the tensors in network.data, by name.
    """

    data: bytes
    model: Message
    messages: Messages
    places: dict[str, Place]

    def stored(self, weights: memoryview | None) -> dict[str, NDArray[np.generic]]:
        """The tensors that network.data has, by name, as arrays on its memory."""
        if weights is None:
            return {}
        return {
            name: np.frombuffer(weights, place.dtype, math.prod(place.shape), place.offset).reshape(place.shape)
            for name, place in self.places.items()
        }


def read(data: bytes | memoryview, size: int | None = None) -> OnnxFile:
    """An ONNX file in memory.

    Args:
        data: the file.
        size: bytes of network.data; None if there is none.

    Raises:
        EngineError: it is not written as protobuf writes ONNX, names a file, or a tensor has another size than its
            shape. The package onnx writes files as they should be: `onnx.save(onnx.load(path), path)`.
    """
    if len(data) > MAX_BYTES:
        raise EngineError(f"the network has {len(data)} bytes, more than one ONNX file can have, {MAX_BYTES}")
    file = bytes(data)
    try:
        model, messages = wire.read(file)
    except ValueError as error:
        raise EngineError(f"the network is not an ONNX file as protobuf writes it, or damaged: {error}") from None
    try:
        return OnnxFile(file, model, messages, _check(model, messages, file, size))
    except ValueError as error:
        raise EngineError(f"the network is refused: {error}") from None


def _check(model: Message, messages: Messages, data: bytes, size: int | None) -> dict[str, Place]:
    """Where network.data has tensors; ValueError with a clause on what is wrong."""
    if "graph" not in model:
        raise ValueError("it has no graph")
    versions = ["" if entry.get("domain") == "ai.onnx" else entry.get("domain", "") for entry in model.get(OPSETS, [])]
    _once("versions of the operators of", versions)
    settings = [entry.get("key", "") for entry in model.get("metadata_props", [])]
    _once("entries of metadata", settings)
    if RUNTIME_SETTINGS in settings:
        raise ValueError(
            f"its metadata has {RUNTIME_SETTINGS!r}, options of ONNX Runtime, which a file does not choose"
        )
    for graph in messages["GraphProto"]:
        _once("initializers", [tensor.get("name", "") for tensor in graph.get("initializer", [])])
    for node in messages["NodeProto"]:
        if node.get("op_type") in READS_FILES:
            raise ValueError(f"its operator {node['op_type']} reads files")
    for attribute in messages["AttributeProto"]:
        _attribute(attribute)
    for dimension in messages["TensorShapeProto.Dimension"]:
        if dimension.get("dim_value", 0) < -1:
            raise ValueError(f"it tells a size of {dimension['dim_value']}")
    main = {id(tensor) for tensor in model["graph"].get("initializer", [])}
    places: dict[str, Place] = {}
    for tensor in messages["TensorProto"]:
        place = tensors.check(tensor, data, id(tensor) in main, size)
        if place is not None:
            places[tensor.get("name", "")] = place
    return places


def _once(what: str, names: list[str]) -> None:
    """ValueError if a name occurs twice: one reader would take the first, another the last."""
    if len(set(names)) != len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"it has two {what} {twice[:100]!r}")


def _attribute(attribute: Message) -> None:
    """ValueError unless an attribute has one value, where its type says."""
    kind, name = attribute.get("type", 0), attribute.get("name", "")[:100]
    if kind not in _VALUES:
        raise ValueError(f"attribute {name!r} is of type {kind}, which is not taken")
    found = {field for field in _VALUES.values() if field in attribute}
    wrong = found - {_VALUES[kind]}
    if wrong:
        raise ValueError(f"attribute {name!r} is of type {kind} and has a value in {min(wrong)!r}")
    if "ref_attr_name" in attribute:
        if found:
            raise ValueError(f"attribute {name!r} has a value and refers to another")
    elif not found and kind in _SINGLE:
        raise ValueError(f"attribute {name!r} has no value")
