"""Chooses how each convolution is computed, when a plan is built; from then on it is the same everywhere.

Winograd's F(2x2, 3x3) and F(4x4, 3x3) (Lavin & Gray, https://arxiv.org/abs/1509.09308) need 2.25 and 4 times fewer
multiplications, and 1.8 and 4 times larger weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from pysdk.export.engines.native.program import Conv, Input, Output, Program, Tactic, Tensor

TACTICS: tuple[Tactic, ...] = ("direct", "winograd2", "winograd4")
"""The most accurate first."""

_READ = 12
"""Multiplications in the time that one weight takes from memory: fitted to AVX2 and AVX-512 on DDPM's networks."""

_INPUTS = 16
"""Fewer input channels do not pay for Winograd's transforms."""

Profile = Callable[[Program], Sequence[float]]
"""Seconds of each operation of a program, measured."""


def choices(program: Program, op: Conv) -> tuple[Tactic, ...]:
    """What can compute a convolution."""
    square = program.shape(op.weight)[2:] == (3, 3) and op.stride == 1
    return TACTICS if square else TACTICS[:1]


def guessed(program: Program, batch: int) -> Program:
    """The tactics that cost least in a call of `batch` images, by a model that knows no machine."""

    def guess(op: Conv) -> Tactic:
        if len(choices(program, op)) == 1 or program.shape(op.weight)[1] < _INPUTS:
            return "direct"
        return min(TACTICS, key=lambda tactic: cost(program.tensors[op.out], tactic, batch))

    return with_tactics(program, {op.out: guess(op) for op in program.ops if isinstance(op, Conv)})


def cost(out: Tensor, tactic: Tactic, batch: int) -> int:
    """Multiplications for one pair of channels, and reading their weights, which a small map does not pay back."""
    if tactic == "direct":
        return 9 * (batch * out.height * out.width + _READ)
    edge = int(tactic[-1])
    tiles = batch * -(-out.height // edge) * -(-out.width // edge)
    return (edge + 2) ** 2 * (tiles + _READ)


def measured(program: Program, profile: Profile) -> Program:
    """The fastest tactic for each shape of convolution; layers of one shape get the same."""
    shapes: dict[object, list[Conv]] = {}
    for op in program.ops:
        if isinstance(op, Conv) and len(choices(program, op)) > 1:
            shapes.setdefault(shape(program, op), []).append(op)
    places = {op.out: index for index, op in enumerate(program.ops) if isinstance(op, Conv)}
    layers = [op.out for ops in shapes.values() for op in ops]
    if not layers:
        return program
    seconds = {tactic: profile(with_tactics(program, dict.fromkeys(layers, tactic))) for tactic in TACTICS}
    best: dict[int, Tactic] = {}
    for ops in shapes.values():
        fastest = min(TACTICS, key=lambda tactic: sum(seconds[tactic][places[op.out]] for op in ops))
        best |= dict.fromkeys((op.out for op in ops), fastest)
    return with_tactics(program, best)


def shape(program: Program, op: Conv) -> object:
    """What the speed of a convolution depends on."""
    inputs = [program.tensors[x] for x in op.x]
    return (tuple(inputs), program.tensors[op.out], op.pads, op.upsample, op.embedding is None, op.residual is None)


def with_tactics(program: Program, tactics: Mapping[int, Tactic]) -> Program:
    """The program with other tactics for the convolutions that write these tensors."""
    ops = [
        replace(op, tactic=tactics[op.out]) if isinstance(op, Conv) and op.out in tactics else op for op in program.ops
    ]
    return Program(program.tensors, program.weights, ops)


def more_accurate(program: Program, errors: Mapping[int, float]) -> Program | None:
    """The program with a more accurate tactic for the worse half of its Winograd convolutions; None if there is none.

    Args:
        program: what is too inaccurate.
        errors: each convolution's own, by the tensor it writes.
    """
    fast = [op for op in program.ops if isinstance(op, Conv) and op.tactic != "direct"]
    if not fast:
        return None
    worst = sorted(fast, key=lambda op: -errors.get(op.out, 0.0))[: (len(fast) + 1) // 2]
    slower: dict[Tactic, Tactic] = {"winograd4": "winograd2", "winograd2": "direct"}
    return with_tactics(program, {op.out: slower[op.tactic] for op in worst})


def layer(program: Program, op: Conv) -> Program:
    """A program of one convolution: the network's input is what it reads (upsampled, if it does), its result the
    output."""
    pieces = [program.weights[op.weight], *([] if op.bias is None else [program.weights[op.bias]])]
    x = program.tensors[op.x[0]]
    read = Tensor(x.channels, x.height * op.upsample, x.width * op.upsample)
    alone = replace(
        op, x=(0,), out=1, weight=0, bias=None if op.bias is None else 1, upsample=1, embedding=None, residual=None
    )
    return Program([read, program.tensors[op.out]], pieces, [Input(out=0), alone, Output(x=1)])
