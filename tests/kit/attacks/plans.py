"""Files in the place of a plan, and plans whose networks are to be refused."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from onnx import TensorProto, helper

from kit.attacks.forged import HIDDEN, model, number, outside, piece
from kit.attacks.forged import graph as forged_graph
from kit.attacks.pictures_and_arrays import special
from kit.tiny_networks import multiplication, toy_engine, write_toy_plan
from pysdk.engines.native import Head, TensorInfo
from pysdk.plan.container import directory, lay_out, local_header
from pysdk.plan.reader import Plan
from pysdk.plan.writer import write_plan

SHAPE = (1, 4, 4)
BATCH = ["batch", *SHAPE]
SPECIAL = ("pipe", "socket", "device", "folder")

Make = Callable[[Path], object]


def network(*nodes: Any) -> bytes:
    """From x and t to output."""
    ports = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", BATCH), ("t", [1]))]
    graph = helper.make_graph(nodes, "g", ports, [helper.make_tensor_value_info("output", 1, BATCH)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(made.SerializeToString())


def constant(name: str, kind: int, *values: int) -> Any:
    shape = [len(values)] if len(values) > 1 else []
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, shape, list(values)))


def loop() -> bytes:
    """2^63 times -x."""
    values = [("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("v", 1, None)]
    inputs = [helper.make_tensor_value_info(*value) for value in values]
    outputs = [helper.make_tensor_value_info(*value) for value in (("on", TensorProto.BOOL, []), ("w", 1, None))]
    nodes = [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    repeat = helper.make_node("Loop", ["n", "yes", "x"], ["output"], body=body)
    return network(constant("n", TensorProto.INT64, 2**63 - 1), constant("yes", TensorProto.BOOL, 1), repeat)


def large() -> bytes:
    """Zeros of 1.2 GB, of which the mean is taken."""
    size = constant("size", TensorProto.INT64, 30_000, 10_000)
    nodes = [
        helper.make_node("Mul", ["size", "one"], ["sizes"]),
        helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
        helper.make_node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["output"]),
    ]
    return network(size, constant("one", TensorProto.INT64, 1), *nodes)


def attention() -> bytes:
    """A native program: attention over 512 x 512 pixels."""
    place = {"op": "attention", "out": 1, "heads": 1, "head_channels": 3, "scale": 1.0}
    head = Head(
        version=1,
        tensors=tuple(TensorInfo(3, 512, 512, shared=False) for _ in range(2)),
        weights=(),
        ops=({"op": "input", "out": 0}, place | dict.fromkeys("qkv", (0, 0, 3)), {"op": "output", "x": 1}),
    )
    return bytes(msgspec.json.encode(head))


def native_plan(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5), shape=(3, 512, 512), out_channels=3)
    with Plan.open(path) as plan:
        engines = (toy_engine(kind="native", member="native.json"),)
        manifest = msgspec.structs.replace(plan.manifest, engines=engines)
        members = {"network.onnx": bytes(plan.member("network.onnx")), "native.json": attention()}
    write_plan(path, manifest, members)


def manifest(data: bytes) -> Make:
    """A plan with right checksums around any manifest."""

    def make(path: Path) -> None:
        entries = lay_out([("manifest.json", len(data), zlib.crc32(data))])
        path.write_bytes(local_header(entries[0]) + data + directory(entries))

    return make


def plan_of(onnx: bytes) -> Make:
    return lambda path: write_toy_plan(path, onnx, shape=SHAPE)


def damaged(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5, shape=SHAPE), shape=SHAPE)
    data = path.read_bytes()
    at = data.index(b"multiplication")
    path.write_bytes(data[:at] + b"M" + data[at + 1 :])


def cut(path: Path) -> None:
    write_toy_plan(path, multiplication(0.5, shape=SHAPE), shape=SHAPE)
    path.write_bytes(path.read_bytes()[:-30])


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def written(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def of_kind(kind: str) -> Make:
    return lambda path: special(path.parent, kind).rename(path)


KINDS: dict[str, Make] = {kind: of_kind(kind) for kind in SPECIAL}

PLANS: dict[str, Make] = {
    **KINDS,
    "missing": lambda path: None,
    "empty": written(b""),
    "text": written(b"hello" * 1000),
    "pointer": written(b"version https://git-lfs.github.com/spec/v1\n"),
    "sparse": sparse,
    "cut": cut,
    "brackets": manifest(b"[" * 100_000),
    "objects": manifest(b'{"model":' * 100_000),
}
"""What no command opens."""

outside_graph = forged_graph(piece(5, outside("/etc/passwd"), tag=HIDDEN[5]))
NETWORKS: dict[str, Make] = {
    "damaged": damaged,
    "external data": plan_of(model(forged_graph(piece(5, outside("/etc/passwd"))))),
    "hidden external data": plan_of(model(outside_graph)),
    "brackets": plan_of(piece(7, piece(1, piece(5, b"\x0a" * 5000)))),
    "no network": plan_of(number(1, 8)),
    "loop": plan_of(loop()),
    "large": plan_of(large()),
    "attention": native_plan,
}
"""What `info` describes and no command runs."""
WORDS = {
    "damaged": "SHA-256",
    "external data": "/etc/passwd",
    "hidden external data": "field 1073741829",
    "brackets": "out of order",
    "no network": "no graph",
    "loop": "'Loop'",
    "large": "ONNX Runtime needs 1,200,000,000 bytes more",
    "attention": "2.2e+12 multiplications",
}
"""That tell it was refused for what it is."""
