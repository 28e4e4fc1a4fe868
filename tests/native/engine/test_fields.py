"""Every way in which an op can be wrong is a ValueError that names it and its field."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from kit.engine.corpus import every_op, normal
from kit.engine.programs import Program, refused

HUGE = (2**31, 2**62, 2**63 - 1, 2**63, 2**64, 2**200, -1, -(2**63))


OPS = {op["op"]: number for number, op in enumerate(every_op().ops)}
FIELDS = [(op, field) for op, number in OPS.items() for field in every_op().ops[number] if field != "op"]
OPTIONAL = {
    ("conv", "bias"),
    ("conv", "embedding"),
    ("conv", "residual"),
    ("linear", "bias"),
    ("attention", "residual"),
}


def changed(op: str, **fields: Any) -> Program:
    program = every_op()
    program.ops[OPS[op]] |= fields
    return program


def where(op: str, field: str) -> str:
    return rf"^op {OPS[op]} '{op}': {field} "


def test_the_program_is_valid():
    assert np.isfinite(every_op().run()).all()


@pytest.mark.parametrize(("op", "field"), FIELDS)
def test_a_missing_field(op: str, field: str):
    program = every_op()
    del program.ops[OPS[op]][field]
    if (op, field) in OPTIONAL:
        program.native()
    elif (op, field) in {("group_norm", "scale"), ("group_norm", "shift")}:
        refused(program, where(op, "scale") + "and shift come together")
    else:
        refused(program, where(op, field) + "is missing")


@pytest.mark.parametrize("op", OPS)
def test_an_unknown_field(op: str):
    refused(changed(op, colour=1), where(op, "colour") + "is not a field of this op")


@pytest.mark.parametrize(("op", "field"), FIELDS)
def test_a_field_of_another_type(op: str, field: str):
    right = changed(op).ops[OPS[op]][field]
    wrong: list[Any] = [None, {}, [1.5], [None], "text", True, 1.5, 1, b"bytes", [[1]], np.float32(1), "\ud800", [True]]
    for value in wrong:
        same = type(value) is type(right)
        if same and not (isinstance(value, list) and not all(type(v) is int for v in value)):
            continue
        refused(changed(op, **{field: value}), where(op, field))


@pytest.mark.parametrize(("op", "field"), [f for f in FIELDS if type(every_op().ops[OPS[f[0]]][f[1]]) is int])
@pytest.mark.parametrize("value", HUGE)
def test_a_whole_number_out_of_range(op: str, field: str, value: int):
    refused(changed(op, **{field: value}), where(op, field))


@pytest.mark.parametrize(("op", "field"), [f for f in FIELDS if isinstance(every_op().ops[OPS[f[0]]][f[1]], list)])
def test_a_list_out_of_range(op: str, field: str):
    right = every_op().ops[OPS[op]][field]
    wrong = [[*right[:i], value, *right[i + 1 :]] for i in range(len(right)) for value in HUGE]
    for value in [*wrong, [], right * 9, right[:-1] if field != "x" else []]:
        refused(changed(op, **{field: value}), where(op, field))


@pytest.mark.parametrize(
    ("op", "field", "value", "message"),
    [
        ("conv", "stride", 0, "is 0, expected 1 to 2"),
        ("conv", "stride", 3, "is 3"),
        ("conv", "upsample", 3, "is 3"),
        ("conv", "pads", [31, 1, 1, 1], "is 31, expected 0 to 30"),
        ("conv", "pads", [1, 1, 1, 2], None),
        ("conv", "tactic", "winograd3", "is 'winograd3', expected direct, winograd2 or winograd4"),
        ("conv", "tactic", "", "is ''"),
        ("conv", "embedding", [2, 10], "is 10, expected 0 to 9"),
        ("conv", "embedding", [0, 0], None),
        ("conv", "residual", 2, "has another shape"),
        ("attention", "residual", 2, "has another shape than the result"),
        ("group_norm", "groups", 2, "is 2, which does not divide 3 channels"),
        ("group_norm", "epsilon", -1e-9, "is not between 0 and 1"),
        ("group_norm", "epsilon", float("nan"), "is not between 0 and 1"),
        ("group_norm", "scale", [0, 0], None),
        ("attention", "scale", 0.0, "is not a number between"),
        ("attention", "scale", -1.0, "is not a number between"),
        ("attention", "scale", 1e-60, "is not a number between"),
        ("attention", "scale", float("inf"), "is not a number between"),
        ("attention", "scale", float("nan"), "is not a number between"),
        ("attention", "heads", 2, None),
        ("scale", "factor", float("inf"), "is not a number between"),
        ("timestep", "scale", float("nan"), "is not a number between"),
    ],
)
def test_a_value_out_of_range(op: str, field: str, value: Any, message: str | None):
    """None: the values do not fit together, and any field of the op may be blamed."""
    refused(changed(op, **{field: value}), f"^op {OPS[op]} '{op}': " if message is None else where(op, field) + message)


def test_head_channels_beyond_the_tensor():
    refused(changed("attention", q=[13, 7, 1]), "q goes beyond the channels|q is 13")
    program = every_op()
    joined = program.ops[OPS["concat"]]["out"]
    for name in "qkv":
        for place in ([joined, 7, 1], [joined, 1, 4], [joined, 0, 9], [joined, 8, 0]):
            message = where("attention", name) + "goes beyond"
            if place == [joined, 8, 0]:  # the same channel for every head
                changed("attention", **{name: place}).native()
            else:
                refused(changed("attention", **{name: place}), message)


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([], "has no output"),
        ([{"op": "input", "out": 0}], "has no output"),
        ([{"op": "output", "x": 0}], "op 0 'output': x is tensor 0, which is not written"),
        ([{"op": "input", "out": 0}, {"op": "input", "out": 0}], "op 1 'input': out is tensor 0, which is wr"),
        ([{"op": "input", "out": 0}, {"op": "silu", "x": 0, "out": 0}], "op 1 'silu': out is tensor 0, which is wr"),
        ([{"op": "input", "out": 0}, {"op": "silu", "x": 1, "out": 1}], "op 1 'silu': x is tensor 1, which is"),
        ([{"op": "input", "out": 0}, {"op": "concat", "x": [1], "out": 1}], "op 1 'concat': x is tensor 1, which is"),
        ([{"op": "input", "out": 0}, {"op": "output", "x": 0}, {"op": "output", "x": 0}], "op 2 'output' comes after"),
        ([{"op": "input", "out": 0}, {"op": "output", "x": 0}, {"op": "silu", "x": 0, "out": 1}], "op 2 'silu' comes"),
        ([{"op": "input", "out": 2}], "op 0 'input': out is 2, expected 0 to 1"),
        ([{"op": "inputs", "out": 0}], "op 0: there is no op 'inputs'"),
        ([{"op": "", "out": 0}], "op 0: there is no op ''"),
        ([{"out": 0}], "op 0: op is missing"),
        ([{"op": 3, "out": 0}], "op 0: op is not a text"),
        ([{"op": "input", 3: 0}], "op 0: the name of a field is not a text"),
        ([7], "op 0 is not a dict"),
    ],
)  # fmt: skip
def test_the_order_of_ops(ops: list[Any], message: str):
    program = Program(np.zeros((1, 2, 3, 3)), out_channels=2)
    program.tensors = [(2, 3, 3, False)] * 2
    program.ops = ops
    refused(program, re.escape(message))


def test_attention_of_its_own_result():
    program = every_op()
    attention = program.ops[OPS["attention"]]
    refused(changed("attention", q=[attention["out"], 0, 1]), "q is tensor .* which is not written before")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("tactic", ["winograd2", "winograd4"])
def test_winograd_needs_3x3_and_stride_1(tactic: str, stride: int):
    weight = normal(0, 2, 2, 3, 3) if stride == 2 else normal(0, 2, 2, 1, 3)
    program = Program(normal(1, 1, 2, 5, 5))
    program.output(program.conv([program.image()], weight, [1] * 4, tactic=tactic, stride=stride))
    refused(program, r"^op 1 'conv': tactic is 'winograd.', which needs a 3x3 kernel and stride 1")


def test_two_maps_need_a_1x1_kernel():
    program = Program(normal(0, 1, 2, 5, 5))
    image = program.image()
    program.output(program.conv([image, image], normal(1, 2, 4, 3, 3), [1] * 4))
    refused(program, "^op 1 'conv': x has two tensors")


def test_a_kernel_larger_than_the_padded_map():
    program = Program(normal(0, 1, 2, 5, 5))
    program.tensors = [(2, 5, 5, False), (2, 1, 1, False)]
    program.ops = [{"op": "input", "out": 0}]
    weight = program.weight(normal(1, 2, 2, 8, 1))
    program.op("conv", x=[0], out=1, weight=weight, pads=[1, 0, 1, 0], stride=1, upsample=1, tactic="direct")
    refused(program, "^op 1 'conv': weight is larger than the padded map")


@pytest.mark.parametrize("x", [[0, 1], [2]])
def test_shared_and_other_sizes_are_not_maps(x: list[int]):
    program = Program(normal(0, 1, 2, 5, 5))
    program.image()
    program.tensors.append((2, 4, 5, False))
    program.ops.append({"op": "pool", "x": 0, "out": 1})
    refused(program, "^op 1 'pool': out has another shape")
    program.ops.pop()
    shared = program.shared_vector(normal(1, 2))
    program.op("concat", x=[0, shared], out=program.like(0))
    refused(program, "^op .* 'concat': x has a tensor of another size")


def test_quarter_turns_are_none_or_one():
    program = every_op()
    index = program.ops[OPS["timestep"]]["quarter_turns"]
    program.weights[index] = ((4,), [(0, 4 * 4 + 2, 4, 1, False)])
    refused(program, where("timestep", "quarter_turns") + "has a value that is neither 0 nor 1")
