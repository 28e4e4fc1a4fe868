"""Runs a program in float64: the meaning of its operations, against which the native engine is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysdk.export.engines.native.program import (
    Add,
    AnyOp,
    Attention,
    Concat,
    Conv,
    Embedding,
    GroupNorm,
    Heads,
    Input,
    Linear,
    Output,
    Part,
    Pool,
    Program,
    Scale,
    Silu,
    Timestep,
    Upsample,
    reads,
    writes,
)

Array: TypeAlias = NDArray[np.float64]


def run(
    program: Program,
    x: NDArray[np.floating[Any]],
    t: float | NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]] | None = None,
    see: Callable[[AnyOp, Array], object] | None = None,
) -> Array:
    """The network's output, float64 (B, out, H, W).

    Args:
        program: what to run.
        x: (B, C, H, W).
        t: the timestep of all images, or one for each, (B,).
        labels: (B,), for a network with classes.
        see: is shown every operation with the tensor it wrote, (B or 1, C, H, W).
    """
    machine = _Machine(program, x.astype(np.float64), np.atleast_1d(np.asarray(t, np.float64)), labels)
    last = {tensor: index for index, op in enumerate(program.ops) for tensor in reads(op)}
    for index, op in enumerate(program.ops):
        with np.errstate(all="ignore"):  # weights may be NaN; who compares finds out
            value = machine.compute(op)
        out = writes(op)
        if out is None:
            return value
        machine.values[out] = value
        if see is not None:
            see(op, value)
        for tensor in {*reads(op), out}:
            if last.get(tensor, -1) <= index:
                del machine.values[tensor]
    raise ValueError("the program has no output")


class _Machine:
    """The tensors that are needed later; (B, C, H, W), B = 1 for shared ones of one timestep."""

    def __init__(self, program: Program, x: Array, t: Array, labels: NDArray[np.integer[Any]] | None) -> None:
        self.program, self.x, self.t, self.labels = program, x, t, labels
        self.values: dict[int, Array] = {}

    def compute(self, op: AnyOp) -> Array:  # noqa: PLR0911, PLR0912
        """The tensor that `op` writes."""
        values = self.values
        match op:
            case Input():
                return self.x
            case Output():
                return values[op.x]
            case Timestep():
                angle = self.t[:, None] * op.scale * self.weight(op.frequencies)
                sines: Array = np.sin(angle + self.weight(op.quarter_turns) * (np.pi / 2))
                return sines[:, :, None, None]
            case Embedding():
                if self.labels is None:
                    raise ValueError("the network needs labels")
                rows: Array = self.weight(op.table)[self.labels]
                return rows[:, :, None, None]
            case Linear():
                out: Array = values[op.x][:, :, 0, 0] @ self.weight(op.weight).T
                return (out if op.bias is None else out + self.weight(op.bias))[:, :, None, None]
            case Silu():
                return silu(values[op.x])
            case Add():
                return values[op.a] + values[op.b]
            case Scale():
                return values[op.x] * op.factor
            case GroupNorm():
                return self.group_norm(op)
            case Conv():
                return self.conv(op)
            case Attention():
                return self.attention(op)
            case Pool():
                batch, channels, height, width = values[op.x].shape
                means: Array = values[op.x].reshape(batch, channels, height // 2, 2, width // 2, 2).mean((3, 5))
                return means
            case Upsample():
                return values[op.x].repeat(2, 2).repeat(2, 3)
            case Concat():
                return self.joined(op.x)

    def weight(self, index: int) -> Array:
        """A weight, stacked, in float64."""
        return self.program.weight(index).astype(np.float64)

    def joined(self, tensors: tuple[int, ...]) -> Array:
        """Tensors one behind the other by channel."""
        found = [self.values[tensor] for tensor in tensors]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)

    def part(self, part: Part, count: int) -> Array:
        """Some channels of a vector."""
        tensor, first = part
        return self.values[tensor][:, first : first + count]

    def group_norm(self, op: GroupNorm) -> Array:
        """Biased variance, over the channels of a group and all pixels."""
        x = self.joined(op.x)
        grouped = x.reshape(len(x), op.groups, -1)
        centred = grouped - grouped.mean(2, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(2, keepdims=True) + op.epsilon)
        y = y.reshape(x.shape) * self.weight(op.gamma)[:, None, None] + self.weight(op.beta)[:, None, None]
        if op.scale is not None:
            y = y * (1 + self.part(op.scale, x.shape[1]))
        if op.shift is not None:
            y = y + self.part(op.shift, x.shape[1])
        return silu(y) if op.silu else y

    def conv(self, op: Conv) -> Array:
        """One matrix product for each tap of the kernel."""
        x, weight = self.joined(op.x), self.weight(op.weight)
        if op.upsample == 2:
            x = x.repeat(2, 2).repeat(2, 3)
        top, left, bottom, right = op.pads
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        kernel, step = weight.shape[2:], op.stride
        height, width = ((x.shape[2 + axis] - kernel[axis]) // step + 1 for axis in (0, 1))
        y = np.zeros((len(x), len(weight), height * width))
        for row in range(kernel[0]):
            for column in range(kernel[1]):
                tap = x[:, :, row : row + step * height : step, column : column + step * width : step]
                y += weight[:, :, row, column] @ tap.reshape(*x.shape[:2], -1)
        y = y.reshape(*y.shape[:2], height, width)
        if op.bias is not None:
            y += self.weight(op.bias)[:, None, None]
        if op.embedding is not None:
            y = y + self.part(op.embedding, len(weight))
        return y if op.residual is None else y + self.values[op.residual]

    def attention(self, op: Attention) -> Array:
        """Head by head, so that the scores of one fit into memory."""
        q, k, v = (self.heads(part, op) for part in (op.q, op.k, op.v))
        y = np.empty_like(q)
        for head in range(op.heads):
            scores = op.scale * (q[:, head].swapaxes(1, 2) @ k[:, head])
            scores = np.exp(scores - scores.max(2, keepdims=True))
            y[:, head] = v[:, head] @ (scores / scores.sum(2, keepdims=True)).swapaxes(1, 2)
        _, _, height, width = self.values[op.q[0]].shape
        y = y.reshape(len(y), -1, height, width)
        return y if op.residual is None else y + self.values[op.residual]

    def heads(self, part: Heads, op: Attention) -> Array:
        """(B, heads, head_channels, pixels)."""
        tensor, first, stride = part
        x = self.values[tensor]
        channels = first + stride * np.arange(op.heads)[:, None] + np.arange(op.head_channels)
        return x.reshape(*x.shape[:2], -1)[:, channels]


def silu(x: Array) -> Array:
    """x * sigmoid(x), without overflow."""
    return x * (0.5 * (1 + np.tanh(0.5 * x)))
