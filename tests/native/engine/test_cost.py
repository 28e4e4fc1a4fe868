"""What a program costs is known before anything is allocated, and what costs too much for its size is refused."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from kit.engine.corpus import CORPUS, normal
from kit.engine.programs import Program, refused

from pysdk import _native


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize(
    ("tactic", "expected"),
    [
        ("direct", 32 * 32 * (9 * 32) * 48),  # per pixel: taps and padded channels, by padded channels
        ("winograd2", 16 * 16 * 16 * 32 * 48),  # per tile of 2x2: 16 points
        ("winograd4", 8 * 8 * 36 * 32 * 48),
    ],
)
def test_multiplications_of_a_convolution(tactic: str, expected: int):
    program = Program(np.zeros((1, 20, 32, 32)))
    program.output(program.conv([program.image()], normal(0, 40, 20, 3, 3), [1] * 4, tactic=tactic))
    native = program.checked()
    assert native.cost(batch=1).multiplications == expected
    assert native.cost(batch=37).multiplications == 37 * expected


def test_multiplications_of_attention_and_of_what_is_shared():
    program = Program(np.zeros((1, 48, 5, 5)))
    image = program.image()
    places = {name: [image, 16 * i, 8] for i, name in enumerate("qkv")}
    y = program.op("attention", out=program.tensor(16, 5, 5), heads=2, head_channels=8, scale=1.0, **places)
    program.shared_vector(normal(0, 16))
    cost = program.output(y).checked().cost(batch=10)
    linear = 16 * 16  # once for the batch, all channels padded
    assert cost.multiplications == 10 * 2 * 2 * 25 * 32 * 16 + linear


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_what_is_taken(name: str, threads: int):
    program = CORPUS[name]()
    cost = program.checked().cost(batch=program.batch, threads=threads)
    native = program.native(threads)
    network, _ = program.bind(threads, native)
    assert cost.network == network.bytes
    assert cost.weights >= native.weight_bytes
    assert cost.moved > 0


def test_nothing_is_allocated_before_it_is_packed():
    program = Program(np.zeros((1, 2048, 1, 1)))
    x = program.image()
    weight = program.weight(np.zeros((2048, 2048)))
    for _ in range(4):  # each use is packed by itself: 16 MiB
        x = program.op("linear", x=x, out=program.like(x), weight=weight)
    program.output(x)
    before = peak()
    native = program.checked()
    assert native.cost(batch=1).weights > 64 << 20
    assert peak() - before < 8 << 20
    with pytest.raises(RuntimeError, match="is not packed"):
        program.bind(1, native)
    native.pack()
    with pytest.raises(RuntimeError, match="is packed already"):
        native.pack()


def test_small_weights_that_are_packed_large():
    """A weight of nine numbers, 16,000 times: 0.6 GB of transformed weights from a file of a megabyte."""
    program = Program(np.zeros((1, 1, 64, 64)))
    x = program.image()
    weight = program.weight(np.zeros((1, 1, 3, 3)))
    fields = {"weight": weight, "pads": [1] * 4, "stride": 1, "upsample": 1, "tactic": "winograd4"}
    for _ in range(16_000):
        x = program.op("conv", x=[x], out=program.like(x), **fields)
    refused(program.output(x), "^the packed weights have 15[0-9]{7} numbers, more than sixteen times the 144000 that")


def test_too_many_ops():
    program = Program(np.zeros((1, 1, 1, 1)))
    x = program.image()
    y = program.like(x)
    program.ops += [{"op": "scale", "x": x, "out": y, "factor": 1.0}] * 2**14
    refused(program, "is written already")
    program.tensors += [program.tensors[x]] * (2**14 - 2)
    program.ops = program.ops[:1] + [{"op": "scale", "x": 0, "out": i, "factor": 1.0} for i in range(1, 2**14)]
    program.ops += [{"op": "output", "x": 0}] * 2
    refused(program, "more than 16384 ops")


def test_as_many_tensors_as_there_may_be_are_placed():
    """All alive at once: the time to place them grows with their square, so their number has a limit."""
    program = Program(np.zeros((1, 1, 1, 1)))
    x = program.image()
    for _ in range(2**13 - 2):
        program.op("scale", x=x, out=program.like(x), factor=1.0)
    tensors = list(range(1, len(program.tensors)))
    for i in tensors[:-1]:
        x = program.op("add", a=x, b=i, out=program.like(x))
    native = program.output(x).checked()
    assert native.cost(batch=1).network >= 4 * 16 * 2**13


def test_a_batch_beyond_all_bounds():
    native = CORPUS["U-Net"]().checked()
    for batch in (0, -1, 2**20 + 1, 2**62):
        with pytest.raises(ValueError, match="the batch is empty or above"):
            native.cost(batch=batch)
    with pytest.raises(ValueError, match="threads is 0"):
        native.cost(batch=1, threads=0)


def test_a_chain_says_what_it_takes():
    given = {"batch": 64, "shape": (3, 256, 256), "threads": 1}
    image = 4 * 3 * 256 * 256
    most = _native.Chain.most_bytes(**given, rows=1000)
    assert 12 * 64 * image > most > 10 * 64 * image  # input, output, eight arrays at most
    chain = _native.Chain(**given)
    arrays = (chain.x, chain.denoised, chain.network_input, chain.network_output)
    assert sum(array.nbytes for array in arrays) < most
