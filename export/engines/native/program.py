"""The program of the native engine: operations on tensors and weights named by index, each tensor written once.

Tensors are (channels, height, width), one per image or, if `shared`, one for the whole batch (what depends on t alone);
vectors have height = width = 1. The C++ runtime (csrc/engine/) reads the same structures as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pysdk.errors import ExportError

Tactic = Literal["direct", "winograd2", "winograd4"]
Part: TypeAlias = tuple[int, int]
"""(tensor, first channel): some channels of a vector."""
Heads: TypeAlias = tuple[int, int, int]
"""(tensor, first channel, channels from one head to the next)."""
Weight: TypeAlias = tuple[NDArray[np.float32], ...]
"""Pieces stacked along axis 0, out channels first: (O, I, kh, kw), (O, I) or (C,)."""


class NotCovered(ExportError):  # noqa: N818  # not an error of the user: the network runs on ONNX Runtime
    """The native engine has no operation for a part of a network; the message names it and says why."""


class Tensor(Struct, frozen=True):
    """Shape of one image's tensor."""

    channels: int
    height: int
    width: int
    shared: bool = False

    @property
    def pixels(self) -> int:
        """height * width."""
        return self.height * self.width


class Op(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """One operation; `reads` and `rename` see its tensors by the types of its fields."""


class Input(Op, frozen=True, kw_only=True, tag="input"):
    """out = network_input."""

    out: int


class Output(Op, frozen=True, kw_only=True, tag="output"):
    """network_output = x; the last operation."""

    x: int


class Timestep(Op, frozen=True, kw_only=True, tag="timestep"):
    """out[c] = sin(t * scale * frequencies[c] + quarter_turns[c] * pi / 2), in float64; out is a shared vector."""

    out: int
    frequencies: int
    quarter_turns: int
    scale: float


class Embedding(Op, frozen=True, kw_only=True, tag="embedding"):
    """out = the row of `table` (N, C) that is the image's label."""

    out: int
    table: int


class Linear(Op, frozen=True, kw_only=True, tag="linear"):
    """out = weight x + bias, on vectors."""

    x: int
    out: int
    weight: int
    bias: int | None = None


class Silu(Op, frozen=True, kw_only=True, tag="silu"):
    """out = x / (1 + exp(-x))."""

    x: int
    out: int


class Add(Op, frozen=True, kw_only=True, tag="add"):
    """out = a + b; b has a's shape or is a vector with a's channels."""

    a: int
    b: int
    out: int


class Scale(Op, frozen=True, kw_only=True, tag="scale"):
    """out = factor * x."""

    x: int
    out: int
    factor: float


class GroupNorm(Op, frozen=True, kw_only=True, tag="group_norm"):
    """Group normalization of one or two tensors, one behind the other by channel.

    y = norm(x) * gamma + beta; y * (1 + scale) + shift if given; SiLU of it if `silu`.
    """

    x: tuple[int, ...]
    out: int
    groups: int
    epsilon: float
    gamma: int
    beta: int
    silu: bool
    scale: Part | None = None
    shift: Part | None = None


class Conv(Op, frozen=True, kw_only=True, tag="conv"):
    """Convolution of one tensor (two, one behind the other by channel, if 1x1), padded with zeros.

    x is repeated 2 x 2 first if `upsample` is 2; `embedding` is added by channel, `residual` by element.
    """

    x: tuple[int, ...]
    out: int
    weight: int
    bias: int | None = None
    stride: int
    pads: tuple[int, int, int, int]
    """top, left, bottom, right"""
    upsample: int
    embedding: Part | None = None
    residual: int | None = None
    tactic: Tactic


class Attention(Op, frozen=True, kw_only=True, tag="attention"):
    """softmax(scale * q k^T) v over the pixels for each head; head h writes channels h * head_channels and on.

    `residual` is added by element.
    """

    q: Heads
    k: Heads
    v: Heads
    out: int
    heads: int
    head_channels: int
    scale: float
    residual: int | None = None


class Pool(Op, frozen=True, kw_only=True, tag="pool"):
    """Mean of 2 x 2 pixels."""

    x: int
    out: int


class Upsample(Op, frozen=True, kw_only=True, tag="upsample"):
    """Every pixel 2 x 2 times."""

    x: int
    out: int


class Concat(Op, frozen=True, kw_only=True, tag="concat"):
    """Tensors one behind the other by channel."""

    x: tuple[int, ...]
    out: int


AnyOp: TypeAlias = (
    Input
    | Output
    | Timestep
    | Embedding
    | Linear
    | Silu
    | Add
    | Scale
    | GroupNorm
    | Conv
    | Attention
    | Pool
    | Upsample
    | Concat
)

_WHOLE = ("x", "a", "b", "residual")
_PARTS = ("embedding", "scale", "shift", "q", "k", "v")
_WEIGHTS = ("weight", "bias", "gamma", "beta", "table", "frequencies", "quarter_turns")


@dataclass
class Program:
    """Operations in the order they run, with the tensors and weights they name."""

    tensors: list[Tensor] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    ops: list[AnyOp] = field(default_factory=list)

    def shape(self, weight: int) -> tuple[int, ...]:
        """Shape of a weight whose pieces are stacked."""
        pieces = self.weights[weight]
        return (sum(len(piece) for piece in pieces), *pieces[0].shape[1:])

    def weight(self, index: int) -> NDArray[np.float32]:
        """A weight, stacked."""
        pieces = self.weights[index]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def whole_reads(op: AnyOp) -> Iterator[int]:
    """The tensors that `op` reads whole."""
    for name in _WHOLE:
        value = getattr(op, name, None)
        if isinstance(value, int):
            yield value
        elif value is not None:
            yield from value


def part_reads(op: AnyOp) -> Iterator[int]:
    """The tensors from which `op` reads some channels."""
    for name in _PARTS:
        value = getattr(op, name, None)
        if isinstance(value, tuple):
            yield value[0]


def reads(op: AnyOp) -> list[int]:
    """Every tensor that `op` reads."""
    return [*whole_reads(op), *part_reads(op)]


def writes(op: AnyOp) -> int | None:
    """The tensor that `op` writes; None for the output."""
    return None if isinstance(op, Output) else op.out


def weights_of(op: AnyOp) -> dict[str, int]:
    """Fields that name weights."""
    return {name: value for name in _WEIGHTS if (value := getattr(op, name, None)) is not None}


def rename(op: AnyOp, tensors: Mapping[int, int], weights: Mapping[int, int] | None = None) -> AnyOp:
    """`op` with tensors, read or written, and weights under other names."""
    changes: dict[str, object] = {}
    for name in (*_WHOLE, "out"):
        value = getattr(op, name, None)
        if isinstance(value, int):
            changes[name] = tensors.get(value, value)
        elif value is not None:
            changes[name] = tuple(tensors.get(one, one) for one in value)
    for name in _PARTS:
        value = getattr(op, name, None)
        if isinstance(value, tuple):
            changes[name] = (tensors.get(value[0], value[0]), *value[1:])
    if weights is not None:
        changes |= {name: weights[value] for name, value in weights_of(op).items()}
    return msgspec.structs.replace(op, **changes)


def tidy(program: Program) -> Program:
    """Without what leads nowhere; tensors and weights numbered in the order of use."""
    needed: set[int] = set()
    kept: list[AnyOp] = []
    for op in reversed(program.ops):
        if isinstance(op, Output) or writes(op) in needed:
            kept.append(op)
            needed.update(reads(op))
    kept.reverse()
    written = [out for op in kept if (out := writes(op)) is not None]
    tensors = {old: new for new, old in enumerate(written)}
    weights: dict[int, int] = {}
    for op in kept:
        for weight in weights_of(op).values():
            weights.setdefault(weight, len(weights))
    return Program(
        tensors=[program.tensors[old] for old in tensors],
        weights=[program.weights[old] for old in weights],
        ops=[rename(op, tensors, weights) for op in kept],
    )
