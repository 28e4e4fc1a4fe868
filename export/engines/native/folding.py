"""Folds the four projections of single-head attention into two.

With x a pixel's channels, q = Wq x + bq, k = Wk y + bk and v = Wv y + bv,

    q . k = (Wk^T Wq x + Wk^T bq) . y + terms without y,

and terms that are the same for every y cancel in the softmax: the keys are the input itself. The weights of the softmax
sum to one, so the output projection goes through the sum:

    Wo sum_y a_y v_y + bo = sum_y a_y (Wo Wv y + Wo bv + bo).

Products of weights are made in float64. With several heads of few channels each the products would be larger than the
factors: those are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from pysdk.export.engines.native.program import AnyOp, Attention, Conv, Program, Tensor, reads

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """y = matrix x + bias of every pixel of a tensor."""

    x: int
    matrix: Matrix
    bias: Matrix


def attentions(program: Program) -> Program:
    """The program with the projections of single-head attention folded into each other."""
    counts: dict[int, int] = {}
    for op in program.ops:
        for tensor in reads(op):
            counts[tensor] = counts.get(tensor, 0) + 1
    convs = {op.out: op for op in program.ops if isinstance(op, Conv)}
    attention = {op.out: op for op in program.ops if isinstance(op, Attention)}
    changed = Program(list(program.tensors), list(program.weights), [])
    dropped: set[int] = set()
    ops: list[AnyOp] = []
    for op in program.ops:
        inner = attention.get(op.x[0]) if isinstance(op, Conv) and len(op.x) == 1 else None
        if inner is None or counts[inner.out] != 1 or not isinstance(op, Conv):
            ops.append(op)
            continue
        new = folded(program, changed, inner, op, convs)
        if new is None:
            ops.append(op)
            continue
        dropped.add(inner.out)
        ops.extend(new)
    changed.ops = [op for op in ops if not (isinstance(op, Attention) and op.out in dropped)]
    return changed


def folded(
    program: Program, changed: Program, inner: Attention, outer: Conv, convs: dict[int, Conv]
) -> list[AnyOp] | None:
    """A projection to queries and values, and the attention on them and on the input; None if it does not apply."""
    after = projection(program, outer, 0, program.tensors[outer.out].channels)
    parts = [
        projection(program, convs[tensor], first, inner.head_channels) if tensor in convs else None
        for tensor, first, _ in (inner.q, inner.k, inner.v)
    ]
    if inner.heads != 1 or after is None or outer.embedding is not None:
        return None
    q, k, v = parts
    if q is None or k is None or v is None or len({q.x, k.x, v.x}) != 1:
        return None
    channels = program.tensors[q.x].channels
    if channels > inner.head_channels or program.tensors[outer.out].channels != channels:
        return None
    weight = np.concatenate([product(k.matrix.T, q.matrix), product(after.matrix, v.matrix)])
    biases = [product(k.matrix.T, q.bias[:, None]), product(after.matrix, v.bias[:, None]) + after.bias[:, None]]
    bias = np.concatenate(biases)[:, 0]
    out = len(changed.tensors)
    shape = program.tensors[q.x]
    changed.tensors.append(Tensor(2 * channels, shape.height, shape.width, shape.shared))
    changed.weights.append((weight.astype(np.float32)[:, :, None, None],))
    changed.weights.append((bias.astype(np.float32),))
    last = len(changed.weights) - 1
    joint = replace(convs[inner.q[0]], out=out, weight=last - 1, bias=last)
    return [
        joint,
        replace(
            inner,
            q=(out, 0, 0),
            k=(q.x, 0, 0),
            v=(out, channels, 0),
            head_channels=channels,
            out=outer.out,
            residual=outer.residual,
        ),
    ]


def product(a: Matrix, b: Matrix) -> Matrix:
    """a b, summed in order: a library's sums depend on the processor, and the plan would with them."""
    total: Matrix = np.zeros((len(a), b.shape[1]))
    for column, row in zip(a.T, b, strict=True):
        total += column[:, None] * row
    return total


def projection(program: Program, op: Conv, first: int, count: int) -> Projection | None:
    """Rows of a 1x1 convolution of one tensor, None if the operation is anything else or does more."""
    shape = program.shape(op.weight)
    plain = op.stride == 1 and op.upsample == 1 and not any(op.pads) and len(op.x) == 1
    if not plain or shape[2:] != (1, 1):
        return None
    rows = slice(first, first + count)
    matrix: NDArray[Any] = program.weight(op.weight)[rows, :, 0, 0]
    bias = np.zeros(count) if op.bias is None else program.weight(op.bias)[rows]
    return Projection(op.x[0], matrix.astype(np.float64), bias.astype(np.float64))
