"""Protobuf messages in the one form that protobuf's own writers give them; any other bytes are refused.

Fields in ascending order, each at most once unless it may repeat; numbers in as few bytes as they need; packed numbers
in one piece; UTF-8 where the schema says text; nothing that is not in the schema. Writing a file again would give
the same bytes, so two readers that forgive different things cannot see two things in one file.

Time and memory grow with the number of fields, which is bounded: weights are passed over, not copied.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np

from pysdk.onnx_file.schema import BYTES, FIXED32, FIXED64, MESSAGES, VARINT, Field

Message: TypeAlias = dict[str, Any]
"""A message's fields by name: int, float, str, a message, `slice` for where bytes are, or a list of these."""

MAX_FIELDS = 1_000_000
"""The most fields in a file; large U-Nets and transformers have a tenth."""

MAX_DEPTH = 64
"""How deep messages may be nested; a graph in a graph is three deeper."""

_CHUNK = 1 << 20
_FLOAT, _DOUBLE = struct.Struct("<f"), struct.Struct("<d")
_WIRE_TYPES = {VARINT: "a number", FIXED64: "8 bytes", BYTES: "bytes", FIXED32: "4 bytes"}
_FIELDS = {message: {field.tag: field for field in fields} for message, fields in MESSAGES.items()}
_NAMES = {message: {field.number: field.name for field in fields} for message, fields in MESSAGES.items()}


def read(data: bytes) -> tuple[Message, dict[str, list[Message]]]:
    """The ModelProto in a file, and every message in it, however deep, by its kind (see `MESSAGES`).

    Raises:
        ValueError: a clause on what is not as protobuf writes it, and where.
    """
    reader = _Reader(data)
    return reader.message("ModelProto", 0, len(data), 0), reader.messages


class _Reader:
    """Reads one file.

    Attributes:
        left: how many fields it may still have.
        messages: those found, by kind.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.left = MAX_FIELDS
        self.messages: dict[str, list[Message]] = {kind: [] for kind in MESSAGES}

    def message(self, kind: str, start: int, stop: int, depth: int) -> Message:
        """The message in these bytes."""
        if depth > MAX_DEPTH:
            raise ValueError(f"it has messages nested more than {MAX_DEPTH} deep")
        found: Message = {}
        self.messages[kind].append(found)
        taken: dict[str, str] = {}  # the field of each one_of
        data, known, last = self.data, _FIELDS[kind], 0
        while start < stop:
            at = start
            tag = data[start]
            start += 1
            if tag >= 0x80:
                tag, start = self.varint(at, stop)
            field = known.get(tag)
            if field is None:
                raise ValueError(f"{_unknown(kind, tag)} (byte {at})")
            if tag <= last and not (tag == last and field.many):
                raise ValueError(f"field {field.name} of a {kind} is out of order, or there twice (byte {at})")
            last = tag
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"it has more than {MAX_FIELDS:,} fields")
            if field.one_of is not None and taken.setdefault(field.one_of, field.name) != field.name:
                raise ValueError(f"a {kind} has {taken[field.one_of]} and {field.name} (byte {at})")
            value, start = self.value(field, start, stop, depth)
            if field.many:
                found.setdefault(field.name, []).append(value)
            else:
                found[field.name] = value
        return found

    def value(self, field: Field, start: int, stop: int, depth: int) -> tuple[Any, int]:
        """A field's value, and where the next field begins."""
        wire_type = field.tag & 7
        if wire_type == BYTES:
            size, start = self.varint(start, stop)
            end = start + size
        elif wire_type == VARINT:
            number, end = self.varint(start, stop)
            return self.number(field, number, start), end
        else:
            end = start + (4 if wire_type == FIXED32 else 8)
        if end > stop:
            raise ValueError(f"{field.name} ends behind the message it is in (byte {start})")
        if wire_type != BYTES:
            return (_FLOAT if wire_type == FIXED32 else _DOUBLE).unpack_from(self.data, start)[0], end
        if field.kind == "string":
            return self.text(field, start, end), end
        if field.packed:
            self.packed(field, start, end)
            return slice(start, end), end
        if field.kind == "bytes":
            return slice(start, end), end
        return self.message(field.kind, start, end, depth + 1), end

    def varint(self, start: int, stop: int) -> tuple[int, int]:
        """A number in as few bytes as it needs, and where the next begins."""
        if start < stop and self.data[start] < 0x80:  # most are small
            return self.data[start], start + 1
        at, value, shift = start, 0, 0
        while at < stop:
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if (byte == 0 and shift) or value >> 64:
                    break
                return value, at
            shift += 7
            if shift == 70:
                break
        else:
            raise ValueError(f"a number ends behind its message (byte {start})")
        raise ValueError(f"a number is written in more bytes than it needs, or has more than 64 bits (byte {start})")

    def number(self, field: Field, value: int, at: int) -> int:
        """The number that 64 bits stand for."""
        if field.kind != "uint64" and value >> 63:
            value -= 1 << 64
        if field.kind == "int32" and not -(1 << 31) <= value < 1 << 31:
            raise ValueError(f"{field.name} has more than 32 bits (byte {at})")
        if field.below is not None and not 0 <= value < field.below:
            raise ValueError(f"{field.name} is {value}, which ONNX does not define (byte {at})")
        return value

    def text(self, field: Field, start: int, end: int) -> str:
        """UTF-8 without a zero, where C would cut it off."""
        try:
            text = self.data[start:end].decode()
        except UnicodeDecodeError:
            raise ValueError(f"{field.name} is not UTF-8 (byte {start})") from None
        if "\0" in text:
            raise ValueError(f"{field.name} has a zero byte in it (byte {start})")
        return text

    def packed(self, field: Field, start: int, end: int) -> None:
        """ValueError unless these are numbers as protobuf packs them, one at least."""
        width = {"float": 4, "double": 8}.get(field.kind)
        if start == end or (width is not None and (end - start) % width):
            raise ValueError(f"{field.name} is empty or does not end with a number (byte {start})")
        while width is None and start < end:
            start += _checked(field, np.frombuffer(self.data, np.uint8, min(_CHUNK, end - start), start), start)


def _checked(field: Field, piece: np.ndarray[Any, np.dtype[np.uint8]], at: int) -> int:
    """How many bytes of a piece of packed numbers are whole ones; ValueError if one is not as it is written."""
    ends = np.flatnonzero(piece < 0x80)
    if len(ends) == 0:
        raise ValueError(f"{field.name} does not end with a number (byte {at})")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes, last = ends - starts + 1, piece[ends]
    wrong = ((last == 0) & (sizes > 1)) | (sizes > 10) | ((sizes == 10) & (last != 1))
    if field.kind == "int32":  # a negative one is written with the sign's bit up to the 64th
        wrong |= ((sizes > 5) & (sizes != 10)) | ((sizes == 5) & (last > 7))
        upper = piece[starts[sizes == 10][:, None] + np.arange(4, 9)]
        wrong[0] |= bool((upper < [0xF8, 0xFF, 0xFF, 0xFF, 0xFF]).any())
    if wrong.any():
        raise ValueError(f"{field.name} has a number that is not written as protobuf does (behind byte {at})")
    return int(ends[-1]) + 1


def _unknown(kind: str, tag: int) -> str:
    number, wire_type = tag >> 3, tag & 7
    if number in _NAMES[kind] and wire_type in _WIRE_TYPES:
        return f"field {_NAMES[kind][number]} of a {kind} has {_WIRE_TYPES[wire_type]}, which it never has"
    return f"a {kind} has field {number} of wire type {wire_type}, which pysdk does not know or does not take"
