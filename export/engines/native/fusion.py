"""Fuses many operations into few. Every pass keeps what the program computes, except the order of sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate

from msgspec.structs import replace

from pysdk.export.engines.native.folding import attentions
from pysdk.export.engines.native.program import (
    Add,
    AnyOp,
    Concat,
    Conv,
    GroupNorm,
    Linear,
    Program,
    Silu,
    Upsample,
    Weight,
    part_reads,
    reads,
    tidy,
    whole_reads,
    writes,
)


def fuse(program: Program) -> Program:
    """The program with SiLU and concatenations inside group norms, embeddings, residuals and upsampling inside
    convolutions, and layers that read the same tensor stacked into one."""
    for step in (silu, concatenations, upsampling, embeddings, residuals, attentions, projections):
        program = tidy(step(program))
    return program


def readers(program: Program) -> dict[int, list[AnyOp]]:
    """The operations that read each tensor; one that reads it twice is listed twice."""
    found: dict[int, list[AnyOp]] = {index: [] for index in range(len(program.tensors))}
    for op in program.ops:
        for tensor in reads(op):
            found[tensor].append(op)
    return found


def rewritten(program: Program, change: Callable[[AnyOp], Iterable[AnyOp]]) -> Program:
    """The program with every operation replaced by those that `change` returns."""
    return Program(program.tensors, program.weights, [new for op in program.ops for new in change(op)])


def silu(program: Program) -> Program:
    """SiLU into the group norm before it."""
    read = readers(program)
    outs: dict[int, int] = {}
    for op in program.ops:
        if isinstance(op, GroupNorm) and not op.silu and [type(one) for one in read[op.out]] == [Silu]:
            (after,) = read[op.out]
            assert isinstance(after, Silu)
            outs[op.out] = after.out

    def change(op: AnyOp) -> Iterable[AnyOp]:
        if isinstance(op, GroupNorm) and op.out in outs:
            return [replace(op, silu=True, out=outs[op.out])]
        return [] if isinstance(op, Silu) and op.x in outs else [op]

    return rewritten(program, change)


def concatenations(program: Program) -> Program:
    """Concatenations of two tensors into the group norms and 1x1 convolutions that read them, if nothing else does."""
    read = readers(program)
    pairs = {
        op.out: op.x
        for op in program.ops
        if isinstance(op, Concat) and len(op.x) == 2 and all(takes_two(one, program) for one in read[op.out])
    }

    def change(op: AnyOp) -> Iterable[AnyOp]:
        if isinstance(op, GroupNorm | Conv) and op.x[0] in pairs:
            return [replace(op, x=pairs[op.x[0]])]
        return [op]

    return rewritten(program, change)


def takes_two(op: AnyOp, program: Program) -> bool:
    """Whether an operation can read two tensors as one."""
    if isinstance(op, Conv):
        plain = op.residual is None and op.stride == op.upsample == 1 and not any(op.pads)
        return plain and program.shape(op.weight)[2:] == (1, 1)
    return isinstance(op, GroupNorm)


def upsampling(program: Program) -> Program:
    """Upsampling into the convolutions that read it; it stays only for what else does."""
    sources = {op.out: op.x for op in program.ops if isinstance(op, Upsample)}

    def change(op: AnyOp) -> Iterable[AnyOp]:
        if isinstance(op, Conv) and len(op.x) == 1 and op.x[0] in sources and op.upsample == op.stride == 1:
            return [replace(op, x=(sources[op.x[0]],), upsample=2)]
        return [op]

    return rewritten(program, change)


def embeddings(program: Program) -> Program:
    """Vectors that are added to a convolution's result into the convolution."""

    def joined(add: Add, convs: dict[int, Conv]) -> Conv | None:
        for out, vector in ((add.a, add.b), (add.b, add.a)):
            conv, here, there = convs.get(out), program.tensors[out], program.tensors[vector]
            wider = here.pixels > 1 or (there.shared and not here.shared)
            if conv is not None and conv.embedding is None and there.pixels == 1 and wider:
                return replace(conv, embedding=(vector, 0))
        return None

    return into_convolutions(program, joined)


def residuals(program: Program) -> Program:
    """Puts maps added to a convolution's result into the convolution; of two convolutions, into the later one."""
    position = {writes(op): index for index, op in enumerate(program.ops)}

    def joined(add: Add, convs: dict[int, Conv]) -> Conv | None:
        one, other = (program.tensors[index] for index in (add.a, add.b))
        if one != other:
            return None
        for out, rest in sorted([(add.a, add.b), (add.b, add.a)], key=lambda pair: -position[pair[0]]):
            conv = convs.get(out)
            if conv is not None and conv.residual is None and out != rest:
                return replace(conv, residual=rest)
        return None

    return into_convolutions(program, joined)


def into_convolutions(program: Program, joined: Callable[[Add, dict[int, Conv]], Conv | None]) -> Program:
    """Sums replaced by the convolution that `joined` makes of one and what is only read by it."""
    read = readers(program)
    convs = {op.out: op for op in program.ops if isinstance(op, Conv) and len(read[op.out]) == 1}
    ops: dict[int | None, AnyOp] = {}  # by what they write, in order
    for op in program.ops:
        new = joined(op, convs) if isinstance(op, Add) else None
        if new is None:
            ops[writes(op)] = op
            continue
        del ops[new.out]  # it runs where the sum was, when both terms are there
        assert isinstance(op, Add)
        ops[op.out] = new = replace(new, out=op.out)
        if len(read[op.out]) == 1:
            convs[op.out] = new
    return Program(program.tensors, program.weights, list(ops.values()))


def projections(program: Program) -> Program:
    """Linear layers, and 1x1 convolutions, of one tensor stacked into one if only parts of their results are read."""
    tensors, weights = list(program.tensors), list(program.weights)
    whole = {tensor for op in program.ops for tensor in whole_reads(op)}
    parts = {tensor for op in program.ops for tensor in part_reads(op)}
    groups: dict[object, list[Linear | Conv]] = {}
    for op in program.ops:
        if isinstance(op, Linear | Conv) and op.out in parts - whole and stackable(op, program):
            groups.setdefault((type(op), op.x, op.bias is None), []).append(op)
    first: dict[int, AnyOp] = {}
    places: dict[int, tuple[int, int]] = {}
    for stack in groups.values():
        if len(stack) == 1:
            continue
        old = [tensors[op.out] for op in stack]
        starts = accumulate([tensor.channels for tensor in old], initial=0)
        out = len(tensors)
        tensors.append(replace(old[0], channels=sum(tensor.channels for tensor in old)))
        places |= {op.out: (out, start) for op, start in zip(stack, starts, strict=False)}
        weights.append(joined_weights(program, [op.weight for op in stack]))
        weight = bias = len(weights) - 1
        if stack[0].bias is not None:
            weights.append(joined_weights(program, [op.bias for op in stack if op.bias is not None]))
            bias = len(weights) - 1
        first[stack[0].out] = replace(stack[0], out=out, weight=weight, bias=None if bias == weight else bias)

    def change(op: AnyOp) -> Iterable[AnyOp]:
        out = writes(op)
        if out in places:
            return [first[out]] if out in first else []
        return [moved(op, places)]

    return rewritten(Program(tensors, weights, program.ops), change)


def stackable(op: Linear | Conv, program: Program) -> bool:
    """Whether the operation is a matrix and a bias, no more."""
    if isinstance(op, Linear):
        return True
    return takes_two(op, program) and len(op.x) == 1 and op.embedding is None


def joined_weights(program: Program, indices: list[int]) -> Weight:
    """The pieces of several weights."""
    return tuple(piece for index in indices for piece in program.weights[index])


def moved(op: AnyOp, places: dict[int, tuple[int, int]]) -> AnyOp:
    """`op` reading parts of tensors from where they are now: (tensor, channels before it)."""
    changes: dict[str, object] = {}
    for name in ("embedding", "scale", "shift", "q", "k", "v"):
        value = getattr(op, name, None)
        if isinstance(value, tuple) and value[0] in places:
            tensor, before = places[value[0]]
            changes[name] = (tensor, value[1] + before, *value[2:])
    return replace(op, **changes) if changes else op
