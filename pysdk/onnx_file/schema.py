"""The messages of an ONNX file, field by field, as onnx.proto (proto2) declares them.

Left out, and so refused: sparse tensors, whose few bytes stand for any size; tensors of text or in segments; training;
maps and opaque types; devices. No exporter of a denoiser writes them.
"""

from __future__ import annotations

from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Protobuf's wire types; 3 and 4 are its groups, which ONNX does not use."""

_WIRE_TYPES = {"int32": VARINT, "int64": VARINT, "uint64": VARINT, "float": FIXED32, "double": FIXED64}


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: what identifies it in the bytes.
        name: what onnx.proto calls it.
        kind: int32, int64, uint64, float, double, bytes, string (UTF-8), or the message in it.
        many: it may occur more than once.
        packed: all its numbers stand in one piece of bytes.
        below: an enum's numbers are less than this.
        one_of: among a message's fields with this name, only one may occur.
    """

    number: int
    name: str
    kind: str
    many: bool = False
    packed: bool = False
    below: int | None = None
    one_of: str | None = None

    @property
    def tag(self) -> int:
        """The number that stands before each of its values."""
        return self.number << 3 | (BYTES if self.packed else _WIRE_TYPES.get(self.kind, BYTES))


def _many(number: int, name: str, kind: str) -> Field:
    return Field(number, name, kind, many=True)


def _packed(number: int, name: str, kind: str) -> Field:
    return Field(number, name, kind, packed=True)


def _either(number: int, name: str, kind: str) -> Field:
    return Field(number, name, kind, one_of="value")


MESSAGES: dict[str, tuple[Field, ...]] = {
    "ModelProto": (
        Field(1, "ir_version", "int64"),
        Field(2, "producer_name", "string"),
        Field(3, "producer_version", "string"),
        Field(4, "domain", "string"),
        Field(5, "model_version", "int64"),
        Field(6, "doc_string", "string"),
        Field(7, "graph", "GraphProto"),
        _many(8, "opset_import", "OperatorSetIdProto"),
        _many(14, "metadata_props", "StringStringEntryProto"),
        _many(25, "functions", "FunctionProto"),
    ),
    "OperatorSetIdProto": (Field(1, "domain", "string"), Field(2, "version", "int64")),
    "StringStringEntryProto": (Field(1, "key", "string"), Field(2, "value", "string")),
    "FunctionProto": (
        Field(1, "name", "string"),
        _many(4, "input", "string"),
        _many(5, "output", "string"),
        _many(6, "attribute", "string"),
        _many(7, "node", "NodeProto"),
        Field(8, "doc_string", "string"),
        _many(9, "opset_import", "OperatorSetIdProto"),
        Field(10, "domain", "string"),
        _many(11, "attribute_proto", "AttributeProto"),
        _many(12, "value_info", "ValueInfoProto"),
        Field(13, "overload", "string"),
        _many(14, "metadata_props", "StringStringEntryProto"),
    ),
    "GraphProto": (
        _many(1, "node", "NodeProto"),
        Field(2, "name", "string"),
        _many(5, "initializer", "TensorProto"),
        Field(10, "doc_string", "string"),
        _many(11, "input", "ValueInfoProto"),
        _many(12, "output", "ValueInfoProto"),
        _many(13, "value_info", "ValueInfoProto"),
        _many(14, "quantization_annotation", "TensorAnnotation"),
        _many(16, "metadata_props", "StringStringEntryProto"),
    ),
    "TensorAnnotation": (
        Field(1, "tensor_name", "string"),
        _many(2, "quant_parameter_tensor_names", "StringStringEntryProto"),
    ),
    "NodeProto": (
        _many(1, "input", "string"),
        _many(2, "output", "string"),
        Field(3, "name", "string"),
        Field(4, "op_type", "string"),
        _many(5, "attribute", "AttributeProto"),
        Field(6, "doc_string", "string"),
        Field(7, "domain", "string"),
        Field(8, "overload", "string"),
        _many(9, "metadata_props", "StringStringEntryProto"),
    ),
    "AttributeProto": (
        Field(1, "name", "string"),
        Field(2, "f", "float"),
        Field(3, "i", "int64"),
        Field(4, "s", "bytes"),
        Field(5, "t", "TensorProto"),
        Field(6, "g", "GraphProto"),
        _many(7, "floats", "float"),
        _many(8, "ints", "int64"),
        _many(9, "strings", "bytes"),
        _many(10, "tensors", "TensorProto"),
        _many(11, "graphs", "GraphProto"),
        Field(13, "doc_string", "string"),
        Field(14, "tp", "TypeProto"),
        _many(15, "type_protos", "TypeProto"),
        Field(20, "type", "int32", below=15),
        Field(21, "ref_attr_name", "string"),
    ),
    "TensorProto": (
        _many(1, "dims", "int64"),
        Field(2, "data_type", "int32"),
        _packed(4, "float_data", "float"),
        _packed(5, "int32_data", "int32"),
        _packed(7, "int64_data", "int64"),
        Field(8, "name", "string"),
        Field(9, "raw_data", "bytes"),
        _packed(10, "double_data", "double"),
        _packed(11, "uint64_data", "uint64"),
        Field(12, "doc_string", "string"),
        _many(13, "external_data", "StringStringEntryProto"),
        Field(14, "data_location", "int32", below=2),
        _many(16, "metadata_props", "StringStringEntryProto"),
    ),
    "ValueInfoProto": (
        Field(1, "name", "string"),
        Field(2, "type", "TypeProto"),
        Field(3, "doc_string", "string"),
        _many(4, "metadata_props", "StringStringEntryProto"),
    ),
    "TypeProto": (
        _either(1, "tensor_type", "TypeProto.Tensor"),
        _either(4, "sequence_type", "TypeProto.Sequence"),
        Field(6, "denotation", "string"),
        _either(9, "optional_type", "TypeProto.Optional"),
    ),
    "TypeProto.Tensor": (Field(1, "elem_type", "int32"), Field(2, "shape", "TensorShapeProto")),
    "TypeProto.Sequence": (Field(1, "elem_type", "TypeProto"),),
    "TypeProto.Optional": (Field(1, "elem_type", "TypeProto"),),
    "TensorShapeProto": (_many(1, "dim", "TensorShapeProto.Dimension"),),
    "TensorShapeProto.Dimension": (
        _either(1, "dim_value", "int64"),
        _either(2, "dim_param", "string"),
        Field(3, "denotation", "string"),
    ),
}
"""The fields of each message, ascending by number, which is the order in which they are written."""
