"""Tensors and weights that do not fit, and programs that would take more memory than they should."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from kit.engine.corpus import every_op
from kit.engine.programs import Program, refused

HUGE = (2**31, 2**62, 2**63 - 1, 2**63, 2**64, 2**200, -1, -(2**63))
OPS = {op["op"]: number for number, op in enumerate(every_op().ops)}


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("value", [0, 2**14 + 1 << 3, *HUGE, None, 1.0, True, "1"])
def test_a_tensor_of_a_wrong_size(place: int, value: Any):
    program = every_op()
    tensor = list(program.tensors[2])
    tensor[place] = value
    program.tensors[2] = tuple(tensor)
    refused(program, "^tensor 2")


def test_a_tensor_of_another_form():
    for wrong in (None, 3, (), (1, 1, 1), (1, 1, 1, False, 1), (1, 1, 1, 0), (1, 1, 1, None), "abcd"):
        program = every_op()
        program.tensors[2] = wrong
        refused(program, "^tensor 2")


def test_sizes_whose_product_is_too_large():
    program = every_op()
    program.tensors[2] = (2**16, 2**14, 2**14, False)  # 2^44 numbers
    refused(program, r"^tensor 2 is 65536 x 16384 x 16384, expected")
    program.tensors[2] = (2**16, 2**9, 2**8, False)  # 2^33, allowed for an image large enough
    refused(program, r"^tensor 2 has 8589934592 numbers, more than 65536 per pixel of the image")


def test_too_many_tensors():
    program = every_op()
    program.tensors += [(1, 1, 1, False)] * 2**14
    refused(program, "more than 16384 tensors")


def weight_field(name: str) -> tuple[Program, int, str]:
    """A program, one of its weights, and the beginning of its errors."""
    program = every_op()
    index = program.ops[OPS["conv"]][name]
    return program, index, rf"^op {OPS['conv']} 'conv': {name} is weight {index}, "


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((1, 0, 3, 27, False), "beyond its source"),
        ((0, 10**9, 3, 27, False), "beyond its source"),
        ((0, 2**63 - 1, 3, 27, False), "beyond its source"),
        ((0, 2**63 - 4, 3, 27, True), "beyond its source"),
        ((2**40, 0, 3, 27, False), "beyond its source"),
        ((0, 0, 4, 27, False), "another shape"),
        ((0, 0, 0, 27, False), "another shape"),
        ((0, 0, 3, 26, False), "another shape"),
        ((0, 0, 3, 0, False), "another shape"),
        ((0, 0, 27, 3, True), "another shape"),
        ((0, 0, 2**62, 27, False), "another shape"),
        ((0, 0, 3, 2**63 - 1, False), "another shape"),
        ((0, 0, 2, 27, False), "whose parts have 2 rows in place of 3"),
    ],
)
def test_a_weight_part(part: tuple[Any, ...], message: str):
    program, index, start = weight_field("weight")
    program.weights[index] = ((3, 3, 3, 3), [part])
    refused(program, start + ".*" + message)


def test_the_last_byte_of_a_source():
    program, index, start = weight_field("weight")
    last = len(program.source) - 3 * 27 * 4
    program.weights[index] = ((3, 3, 3, 3), [(0, last, 3, 27, False)])
    program.native()
    for more in range(1, 4):
        program.weights[index] = ((3, 3, 3, 3), [(0, last + more, 3, 27, False)])
        refused(program, start + ".*beyond its source")


@pytest.mark.parametrize(
    "shape",
    [
        (), (3,), (3, 27), (3, 3, 3), (3, 3, 3, 3, 1), (4, 3, 3, 3), (3, 4, 3, 3), (0, 3, 3, 3), (3, 3, 0, 3),
        (3, 3, 2**62, 4), (3, 3, 2**32, 2**32), (2**63 - 1, 3, 3, 3), (3, 3, 32, 3), (3, 3, 5, 3),
    ],
)  # fmt: skip
def test_a_weight_of_another_shape(shape: tuple[int, ...]):
    program, index, _ = weight_field("weight")
    program.weights[index] = (shape, program.weights[index][1])
    refused(program, f"^op {OPS['conv']} 'conv': (weight|bias|out) ")


@pytest.mark.parametrize(
    "weight",
    [
        None, (), ((3,),), ((3,), [], 1), (3, []), ((3,), 4), ((3,), [(0, 0)]), ((3,), [None]), ((3.0,), []),
        ((True,), []), ((3,), [(0, 0, 3, 1, 0)]), ((3,), [(0, 0, 3, -1, False)]), ((3,), [(0, 0, 2**64, 1, False)]),
        ((3,), [(0, "0", 3, 1, False)]), ((-3,), []), ((2**64,), []),
    ],
)  # fmt: skip
def test_a_weight_of_another_form(weight: Any):
    program = every_op()
    program.weights[1] = weight
    refused(program, "^weight 1")


def test_parts_that_do_not_add_up():
    program, index, start = weight_field("bias")
    for parts, message in (
        ([], "whose parts have 0 rows in place of 3"),
        ([(0, 0, 2, 1, False)] * 2, "another shape"),
        ([(0, 0, 3, 1, False), (0, 0, 1, 1, False)], "another shape"),
        ([(0, 0, 1, 1, False)] * 2, "whose parts have 2 rows"),
    ):
        program.weights[index] = ((3,), parts)
        refused(program, start + ".*" + message)


def test_a_small_file_asks_for_large_memory():
    """The same bytes as many weights, and one weight many times: refused before anything is allocated."""
    program = Program(np.zeros((1, 2**16, 1, 1)))
    x = program.image()
    program.source = bytes(2**16)
    program.weights = [((2**16, 2**16), [(0, 0, 1, 2**14, False)] * 2**16)]
    program.op("linear", x=x, out=program.like(x), weight=0)
    refused(program, "another shape")
    program.weights = [((2**16, 2**16), [(0, 0, 1, 2**16, False)] * 2**16)]
    program.source = bytes(2**18)
    refused(program, "^op 1 'linear': weight is weight 0, with which the program uses more than four times the weights")

    program = Program(np.zeros((1, 2**10, 1, 1)))
    x = program.image()
    weight = program.weight(np.zeros((2**10, 2**10)))
    for _ in range(4):
        x = program.op("linear", x=x, out=program.like(x), weight=weight)
    program.output(x).native()
    program.ops[-1:] = [{"op": "linear", "x": x, "out": program.like(x), "weight": weight}] * 9
    program.tensors += [program.tensors[x]] * 9
    for i in range(9):
        program.ops[-9 + i] = {"op": "linear", "x": x, "out": x + 1 + i, "weight": weight}
    refused(program, "more than four times")


def test_a_batch_that_needs_too_much():
    """One pixel that pads grow to 61 x 61 with 256 channels: a million numbers an image."""
    program = Program(np.zeros((1, 1, 1, 1)))
    image = program.image()
    x = [program.conv([image], np.zeros((256, 1, 1, 1)), [30] * 4) for _ in range(2)]
    program.op("add", a=x[0], b=x[1], out=program.like(x[0]))
    program.output(image)
    native = program.native()
    for batch, message in ((2**13, "on 1 threads needs more than 64 GiB"), (2**14, "is too large")):
        program.x = np.zeros((batch, 1, 1, 1), np.float32)
        with pytest.raises(ValueError, match=f"^a batch of {batch} {message}"):
            program.bind(1, native)


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
@pytest.mark.skipif("PYSDK_SANITIZE" in os.environ, reason="sanitizers need the address space")
def test_memory_that_the_system_denies():
    """4 GiB of activations in 4 GiB of addresses: an error, not the end of the process."""
    code = (
        "import resource, numpy as np; from pysdk import _native\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "side = 2**13\n"
        "program = _native.Program(\n"
        "    shape=(1, side, side), out_channels=1, tensors=[(1, side, side, False)], weights=[], sources=[],\n"
        "    ops=[dict(op='input', out=0), dict(op='output', x=0)])\n"
        "x = np.zeros((1, 1, side, side), np.float32)\n"
        "program.pack()\n"
        "try: _native.Network(program, network_input=x, network_time=np.zeros(1, np.float32),\n"
        "                     network_labels=np.zeros(1, np.int64), network_output=x)\n"
        "except MemoryError: print('MemoryError')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "MemoryError", done.stderr
