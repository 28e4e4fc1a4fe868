"""Networks that ONNX Runtime might read otherwise than we do, name files, or claim sizes: each is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from kit.attacks.forged import (
    HIDDEN,
    PLAIN,
    WEIGHT,
    add_node,
    attribute,
    graph,
    model,
    number,
    outside,
    piece,
    tensor,
    varint,
)
from onnx import helper

from pysdk.engines.onnxruntime.engine import open_session
from pysdk.errors import EngineError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.onnx_file import wire
from pysdk.onnx_file.model import read
from pysdk.onnx_file.schema import MESSAGES

FILE = outside(dims=[1, 1, 2, 2])


def with_weight(*fields: bytes, **changes: object) -> bytes:
    return model(graph(piece(5, tensor(*fields, **{"dims": [1, 1, 2, 2], **changes}))))


def with_attribute(*fields: bytes, kind: int) -> bytes:
    return model(graph(piece(5, WEIGHT), nodes=(add_node(attribute("a", kind, *fields)),)))


def sub(*, tag: bytes | None = None) -> bytes:
    """A graph whose initializer is in a file."""
    return graph(piece(5, FILE, tag=tag))


BURIED = b""
for _ in range(40):
    BURIED = graph(nodes=(add_node(attribute("g", 5, piece(6, BURIED))),))

ATTACKS = {
    # numbers in more bytes than they need
    "hidden initializer": model(graph(piece(5, FILE, tag=HIDDEN[5]))),
    "hidden graph": number(1, 8) + piece(7, graph(piece(5, FILE)), tag=HIDDEN[7]) + piece(8, number(2, 18)),
    "hidden second graph": model(graph(piece(5, WEIGHT)), behind=piece(7, graph(piece(5, FILE)), tag=HIDDEN[7])),
    "hidden location": with_weight(piece(13, b"", tag=HIDDEN[13])),
    "tag of two bytes": model(graph(varint(5 << 3 | 2, 2) + varint(len(FILE)) + FILE)),
    "tag of ten bytes": model(graph(varint(5 << 3 | 2, 10) + varint(len(FILE)) + FILE)),
    "long length": model(graph(piece(5, WEIGHT, size=5))),
    "long number": model(graph(piece(5, WEIGHT)), before=number(5, 1, 3)),
    "number of 65 bits": model(graph(piece(5, WEIGHT)), before=number(5, 1 << 64 | 1)),
    "number of 11 bytes": model(graph(piece(5, WEIGHT)), before=varint(5 << 3) + b"\x80" * 10 + b"\x00"),
    "type of 33 bits": model(graph(piece(5, number(1, 4) + number(2, 1 << 32 | 1) + piece(9, bytes(16))))),
    # fields
    "unknown field": PLAIN + piece(99, b"x"),
    "unknown field with a number": PLAIN + number(99, 1),
    "field 0": PLAIN + number(0, 1),
    "group": PLAIN + varint(30 << 3 | 3) + varint(30 << 3 | 4),
    "group around a graph": number(1, 8) + varint(7 << 3 | 3) + graph() + varint(7 << 3 | 4),
    "wire type 6": PLAIN + varint(7 << 3 | 6),
    "graph as a number": PLAIN + number(7, 1),
    "name as a number": model(graph(piece(5, WEIGHT), more=number(2, 1))),
    "dims packed": model(graph(piece(5, piece(1, b"\x01\x01\x02\x02") + number(2, 1) + piece(9, bytes(16))))),
    "floats not packed": model(graph(piece(5, number(1, 1) + number(2, 1) + varint(4 << 3 | 5) + bytes(4)))),
    "floats in two pieces": model(graph(piece(5, number(1, 2) + number(2, 1) + piece(4, bytes(4)) * 2))),
    "floats in no piece": model(graph(piece(5, number(1, 0) + number(2, 1) + piece(4, b"")))),
    "floats cut": model(graph(piece(5, number(1, 1) + number(2, 1) + piece(4, bytes(3))))),
    "packed, padded": model(graph(piece(5, number(1, 1) + number(2, 7) + piece(7, b"\x81\x00")))),
    "packed, cut": model(graph(piece(5, number(1, 2) + number(2, 7) + piece(7, b"\x01\x80")))),
    "packed, 33 bits": model(graph(piece(5, number(1, 1) + number(2, 6) + piece(5, varint(1 << 32))))),
    "two graphs": PLAIN + piece(7, graph(piece(5, FILE))),
    "two names": with_weight(piece(8, b"v")),
    "two types": model(graph(piece(5, number(1, 4) + number(2, 1) + number(2, 7) + piece(9, bytes(32))))),
    "fields out of order": piece(7, graph(piece(5, WEIGHT))) + number(1, 8) + piece(8, number(2, 18)),
    "initializers apart": model(graph(piece(5, WEIGHT), more=piece(5, FILE))),
    "two of a choice": model(graph(piece(5, WEIGHT), more=piece(13, piece(2, piece(1, b"") + piece(4, b""))))),
    # files
    "initializer": model(graph(piece(5, FILE))),
    "absolute": model(graph(piece(5, outside("/etc/passwd")))),
    "above": model(graph(piece(5, outside("../secret.txt")))),
    "memory": model(graph(piece(5, outside("*/_ORT_MEM_ADDR_/*")))),
    "network.data": model(graph(piece(5, outside("network.data")))),
    "cut by a zero": model(graph(piece(5, outside("network.data\0")))),
    "in an attribute": with_attribute(piece(5, FILE), kind=4),
    "in a list": with_attribute(piece(10, FILE), kind=9),
    "in an inner graph": with_attribute(piece(6, sub()), kind=5),
    "in a list of graphs": with_attribute(piece(11, sub()), kind=10),
    "hidden in an inner graph": with_attribute(piece(6, sub(tag=HIDDEN[5])), kind=5),
    "sparse": model(graph(more=piece(15, piece(1, FILE)))),
    "sparse attribute": with_attribute(varint(20 << 3) + varint(11) + piece(22, piece(1, FILE)), kind=11),
    "training": model(graph(piece(5, WEIGHT)), behind=piece(20, piece(1, sub()))),
    "function": PLAIN + piece(25, piece(1, b"f") + piece(7, add_node(attribute("a", 4, piece(5, FILE))))),
    "default of a function": PLAIN + piece(25, piece(1, b"f") + piece(11, attribute("a", 4, piece(5, FILE)))),
    "marked without entries": model(graph(piece(5, tensor(dims=[1, 1, 2, 2], data_location=1)))),
    "entries without a mark": model(graph(piece(5, outside(data_location=0)))),
    "location 2": with_weight(number(14, 2)),
    "EPContext": model(
        graph(
            nodes=(
                helper.make_node(
                    "EPContext", ["x"], ["output"], domain="com.microsoft", ep_cache_context="secret.txt", embed_mode=0
                ).SerializeToString(),
            )
        )
    ),
    "runtime's options": PLAIN + piece(14, piece(1, b"ort_config") + piece(2, b"{}")),
    "its own format": b"\x18\x00\x00\x00ORTM" + bytes(100),
    # sizes
    "negative": with_weight(dims=[-4]),
    "overflow": with_weight(dims=[2**32, 2**32], raw_data=b""),
    "overflow to the size": with_weight(dims=[2**62, 4, 4]),
    "more values": with_weight(dims=[1, 1, 2, 3]),
    "no values": with_weight(raw_data=b""),
    "values twice": model(graph(piece(5, tensor(dims=[4], float_data=[0.0] * 4)))),
    "values of another type": model(graph(piece(5, number(1, 1) + number(2, 1) + piece(7, b"\x01")))),
    "many axes": with_weight(dims=[1] * 17, raw_data=bytes(4)),
    "no type": with_weight(data_type=0),
    "text": model(graph(piece(5, number(1, 1) + number(2, 8) + piece(6, b"text")))),
    "unknown type": with_weight(data_type=1000),
    "unknown size": model(
        graph(piece(5, WEIGHT), more=piece(13, piece(2, piece(1, piece(2, piece(1, number(1, -5)))))))
    ),
    # names and settings
    "not UTF-8": model(graph(piece(5, WEIGHT)), before=piece(2, b"\xff")),
    "zero byte": model(graph(piece(5, WEIGHT)), before=piece(2, b"a\0b")),
    "two initializers of a name": model(graph(piece(5, WEIGHT) * 2)),
    "two versions": model(graph(piece(5, WEIGHT)), opset=piece(8, number(2, 18)) + piece(8, number(2, 9))),
    "attribute of two types": with_attribute(number(3, 1), piece(6, graph()), kind=2),
    "attribute without a type": with_attribute(number(3, 1), kind=0),
    "attribute of type 15": with_attribute(number(3, 1), kind=15),
    "attribute without a value": with_attribute(kind=2),
    "no graph": number(1, 8),
    "empty": b"",
    "deep": model(BURIED),
    "ends early": PLAIN[:-1],
    "length beyond the end": PLAIN + varint(14 << 3 | 2) + varint(2**62),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_bytes(struct.pack("<4f", *range(1, 5)))
    Path("network.data").write_bytes(bytes(16))
    with pytest.raises(EngineError) as caught:
        open_session(ATTACKS[name], 1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    Path("features.onnx").write_bytes(ATTACKS[name])
    with pytest.raises(EngineError, match=r"features\.onnx: the network is .*onnx.save"):
        OnnxFeatures("features.onnx")


def test_the_runtime_finds_no_files_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the check here missed one."""
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_bytes(struct.pack("<4f", *range(1, 5)))
    attack, seen = ATTACKS["initializer"], read(PLAIN)
    unchecked = replace(seen, data=attack)
    monkeypatch.setattr("pysdk.engines.onnxruntime.engine.read", lambda *_: unchecked)
    with pytest.raises(Exception, match="External data path validation failed"):
        open_session(attack, 1)


def test_what_is_attacked_runs() -> None:
    session, _ = open_session(PLAIN, 1)
    x = np.ones((2, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "t": np.zeros(1, np.float32)})[0], x)


def test_too_many_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FIELDS", 20)
    with pytest.raises(EngineError, match="it has more than 20 fields"):
        read(PLAIN)


def test_the_schema_is_that_of_onnx() -> None:
    """But for what is left out."""
    file = onnx.ModelProto.DESCRIPTOR.file
    for name, fields in MESSAGES.items():
        parts = name.split(".")
        message = file.message_types_by_name[parts[0]]
        message = message.nested_types_by_name[parts[1]] if len(parts) > 1 else message
        assert [field.number for field in fields] == sorted(field.number for field in fields)
        for field in fields:
            theirs = message.fields_by_number[field.number]
            kinds = {
                1: "double",
                2: "float",
                3: "int64",
                4: "uint64",
                5: "int32",
                9: "string",
                12: "bytes",
                14: "int32",
            }
            kind = kinds.get(theirs.type) or theirs.message_type.full_name.removeprefix("onnx.")
            assert (field.name, field.kind) == (theirs.name, kind)
            assert (field.many or field.packed) == theirs.is_repeated
            assert field.packed == theirs.is_packed
            assert (field.one_of is not None) == (theirs.containing_oneof is not None)
            assert (field.below is not None) == (theirs.type == 14)
