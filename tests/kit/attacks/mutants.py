"""ONNX files changed at random, against protobuf: what we take, it reads as the same and would write the same.

By hand: `PYTHONPATH=tests python -m kit.attacks.mutants --seconds 600 --seed 7`.
"""

from __future__ import annotations

import math
import random
import time
from typing import Any

import click
import onnx
from onnx import TensorProto, helper

from kit.attacks.forged import PLAIN, attribute, graph, model, number, piece, tensor, varint
from pysdk.errors import EngineError
from pysdk.onnx_file.model import OnnxFile, read
from pysdk.onnx_file.schema import MESSAGES

MESSAGES_OF = {kind: {field.name: field for field in fields} for kind, fields in MESSAGES.items()}


def seeds() -> list[bytes]:
    """Small files with every kind of message in them."""
    inner = graph(piece(5, tensor(dims=[1, 1, 2, 2])), more=piece(16, piece(1, b"k") + piece(2, b"v")))
    attributes = [
        helper.make_attribute("f", 0.5),
        helper.make_attribute("i", -3),
        helper.make_attribute("s", "text"),
        helper.make_attribute("fs", [1.0, 2.0]),
        helper.make_attribute("is", [1, -2, 300]),
        helper.make_attribute("ss", ["a", "b"]),
        helper.make_attribute("t", helper.make_tensor("c", TensorProto.INT64, [3], [1, -1, 1000])),
        helper.make_attribute("ts", [helper.make_tensor("d", TensorProto.INT32, [2], [5, -5])]),
    ]
    node = helper.make_node("Add", ["x", "w"], ["output"], name="n", domain="d").SerializeToString()
    node = node[: -len(piece(7, b"d"))] + b"".join(piece(5, one.SerializeToString()) for one in attributes)
    node += piece(5, attribute("g", 5, piece(6, inner))) + piece(7, b"d") + piece(9, piece(1, b"k"))
    values = [
        helper.make_tensor("half", TensorProto.FLOAT16, [2], [1.0, 2.0]),
        helper.make_tensor("double", TensorProto.DOUBLE, [1], [2.0]),
        helper.make_tensor("uint64", TensorProto.UINT64, [2], [2**63, 1]),
        helper.make_tensor("float", TensorProto.FLOAT, [2], [2.0, 1.0]),
        helper.make_tensor("int8", TensorProto.INT8, [2], [-1, 100]),
    ]
    whole = graph(*(piece(5, value.SerializeToString()) for value in values), nodes=(node,))
    function = (
        piece(1, b"f") + piece(4, b"a") + piece(5, b"b") + piece(7, node) + piece(9, number(2, 18)) + piece(10, b"d")
    )
    outside = TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    for key, value in (("location", "network.data"), ("offset", "0"), ("length", "16")):
        outside.external_data.add(key=key, value=value)
    return [
        PLAIN,
        model(whole, before=piece(2, b"pysdk") + number(5, 3), behind=piece(14, piece(1, b"k")) + piece(25, function)),
        model(graph(piece(5, outside.SerializeToString()))),
    ]


def split(data: bytes) -> list[tuple[int, Any]] | None:
    """The fields of a message as (tag, value); None if these bytes are none."""
    out: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            out.append((tag, value))
            continue
        size = {1: 8, 5: 4}.get(kind, -1)
        if kind == 2:
            size, at = _varint(data, at)
        if size < 0 or at + size > len(data) or tag < 8:
            return None
        out.append((tag, data[at : at + size]))
        at += size
    return out


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
    return 0, len(data) + 1


def joined(fields: list[tuple[int, Any]], rng: random.Random, rate: float) -> bytes:
    """The message again, a number here and there written otherwise."""

    def padded(value: int) -> bytes:
        if rng.random() >= rate:
            return varint(value)
        return varint(value | (rng.random() < 0.5) << rng.randrange(31, 66), rng.randrange(12))

    out = b""
    for tag, value in fields:
        out += padded(tag)
        if isinstance(value, int):
            out += padded(value)
        else:
            out += (padded(len(value)) if tag & 7 == 2 else b"") + value
    return out


def mutant(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """One change somewhere in the tree of messages."""
    fields = split(data)
    if fields is None or not fields or depth > 12:
        return noise(data, rng)
    inside = [index for index, (tag, value) in enumerate(fields) if tag & 7 == 2 and len(value) > 1]
    if inside and rng.random() < 0.8:
        index = rng.choice(inside)
        fields[index] = (fields[index][0], mutant(fields[index][1], rng, depth + 1))
        return joined(fields, rng, 0)
    index = rng.randrange(len(fields))
    tag, value = fields[index]
    match rng.randrange(9):
        case 0:
            fields.insert(rng.randrange(len(fields) + 1), fields[index])
        case 1:
            del fields[index]
        case 2:
            rng.shuffle(fields)
        case 3:
            fields[index] = (rng.randrange(1, 30) << 3 | tag & 7, value)
        case 4:
            fields[index] = (tag ^ rng.randrange(1, 8), value)
        case 5 if isinstance(value, int):
            fields[index] = (tag, rng.choice([0, 1, 2, 7, 127, 128, 2**31, 2**32 - 1, 2**63, 2**64 - 1, value + 1]))
        case 6:
            fields.append((rng.randrange(1, 30) << 3 | 2, rng.choice(fields)[1]))
            fields[-1] = (fields[-1][0], fields[-1][1] if isinstance(fields[-1][1], bytes) else b"")
        case 7:
            return noise(data, rng)
        case _:
            return joined(fields, rng, 0.5)
    return joined(fields, rng, 0)


def noise(data: bytes, rng: random.Random) -> bytes:
    """A byte changed, put in or taken out."""
    at = rng.randrange(len(data) + 1)
    new = bytes([rng.choice([0, 1, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)])])
    return data[:at] + rng.choice([new, b"", new + data[at : at + 1]]) + data[at + 1 :]


def same(ours: dict[str, Any], theirs: Any, file: OnnxFile, kind: str) -> bool:
    """Whether both read the same fields and values."""
    if set(ours) != {field.name for field, _ in theirs.ListFields()}:
        return False
    for name, value in ours.items():
        field, other = MESSAGES_OF[kind][name], getattr(theirs, name)
        mine = value if field.many else [value]
        if field.packed:
            continue  # compared byte for byte by the caller
        for one, two in zip(mine, other if field.many else [other], strict=True):
            if field.kind in MESSAGES:
                if not same(one, two, file, field.kind):
                    return False
            elif isinstance(one, slice):
                if file.data[one] != two:
                    return False
            elif one != two and not (isinstance(one, float) and math.isnan(one)):
                return False
    return True


def check(data: bytes) -> bool:
    """Whether we take the file. AssertionError if protobuf reads it otherwise, or another exception than ours comes."""
    try:
        file = read(data, 64)
    except EngineError:
        return False
    theirs = onnx.load_model_from_string(data)
    assert theirs.SerializeToString() == data, data.hex()
    assert same(file.model, theirs, file, "ModelProto"), data.hex()
    for one in (one for one in theirs.graph.initializer if one.data_location == TensorProto.EXTERNAL):
        assert one.name in file.places, data.hex()
    return True


def run(count: int, seed: int) -> int:
    """How many of `count` mutants are taken."""
    rng, files = random.Random(seed), seeds()
    assert all(map(check, files))
    taken = 0
    for _ in range(count):
        data = rng.choice(files)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            data = mutant(data, rng)
        taken += check(data)
    return taken


@click.command()
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the first 10,000; the next have the next.")
def main(seconds: float, seed: int) -> None:
    """Try mutants for a time."""
    stop, taken, count = time.monotonic() + seconds, 0, 0
    while time.monotonic() < stop:
        taken += run(10_000, seed + count // 10_000)
        count += 10_000
    click.echo(f"{count:,} mutants: {taken:,} taken, all as protobuf reads them")


if __name__ == "__main__":
    main()
