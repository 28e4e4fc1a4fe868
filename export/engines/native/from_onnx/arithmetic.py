"""Sums and products with constants, gates (SiLU), group norms (affine, scale and shift) and tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pysdk.export.engines.native.from_onnx.lowering import Lowering, Node, lowers
from pysdk.export.engines.native.from_onnx.values import Gate, Line, Scores, Value, Wave, describe
from pysdk.export.engines.native.from_onnx.views import View
from pysdk.export.engines.native.program import GroupNorm, NotCovered


@lowers("Sigmoid")
def sigmoid(lowering: Lowering, node: Node) -> Value:
    """Waits for the product that makes it a SiLU."""
    return Gate(lowering.view(node.inputs[0]))


@lowers("Swish", "Silu")
def swish(lowering: Lowering, node: Node) -> Value:
    """SiLU."""
    if node.attributes.get("alpha", 1.0) != 1.0:
        raise NotCovered(f"has alpha {node.attributes['alpha']}, only 1 is SiLU")
    return lowering.silu(node.inputs[0])


@lowers("Mul", "Div")
def multiply(lowering: Lowering, node: Node) -> Value:
    """a * b or a / b."""
    a, b = node.inputs
    if isinstance(a, np.ndarray) and node.kind == "Mul":
        a, b = b, a
    if isinstance(b, np.ndarray):
        return by_constant(lowering, a, 1.0 / b.astype(np.float64) if node.kind == "Div" else b)
    if node.kind == "Div":
        raise NotCovered(f"divides by {describe(b)}")  # type: ignore[arg-type]
    if isinstance(a, Gate):
        a, b = b, a
    if isinstance(b, Gate):
        x = lowering.view(a)
        if x != b.x:
            raise NotCovered("multiplies by a sigmoid of something else")
        return lowering.silu(x)
    if isinstance(a, Wave | View) and isinstance(b, Wave | View):
        for one, other in ((a, b), (b, a)):
            if isinstance(one, View) and isinstance(other, View) and (scaled := scaled_norm(lowering, one, other)):
                return scaled
    raise NotCovered(f"multiplies {describe(a)} and {describe(b)}")  # type: ignore[arg-type]


def by_constant(lowering: Lowering, value: Value | None, constant: NDArray[Any]) -> Value:
    """value * constant."""
    if isinstance(value, Line):
        if constant.size == 1:
            return Line(value.scale * float(constant.ravel()[0]), value.slope * np.ones(constant.shape))
        return Line(value.scale, value.slope * constant.astype(np.float64))
    if isinstance(value, Scores) and constant.size == 1 and not value.normalized:
        return replace(value, factor=value.factor * float(constant.ravel()[0]))
    if not isinstance(value, View):
        raise NotCovered(f"multiplies {'nothing' if value is None else describe(value)} by a constant")
    op = lowering.producers.get(value.tensor)
    if isinstance(op, GroupNorm) and op.scale is None and not op.silu and (value.factor, value.plus) == (1.0, 0.0):
        gain = lowering.per_channel(value, constant)
        if gain is not None:
            gamma, beta = (lowering.weight(lowering.program.weight(index) * gain) for index in (op.gamma, op.beta))
            return lowering.again(value, msgspec.structs.replace(op, gamma=gamma, beta=beta))
    if constant.size != 1 or constant.ndim > len(value.dims):
        raise NotCovered(f"multiplies shape {value.shape} by a constant of shape {constant.shape}")
    factor = float(constant.ravel()[0])
    return replace(value, factor=value.factor * factor, plus=value.plus * factor)


def scaled_norm(lowering: Lowering, norm: View, scale: View) -> View | None:
    """norm * (1 + scale) of a group norm, if that is what it is."""
    op = lowering.producers.get(norm.tensor)
    if not isinstance(op, GroupNorm) or op.scale is not None or op.silu:
        return None
    if (norm.factor, norm.plus, scale.plus) != (1.0, 0.0, 1.0):
        return None
    part = lowering.part(norm, scale)
    return None if part is None else lowering.again(norm, msgspec.structs.replace(op, scale=part))


@lowers("Add", "Sub", "Sum")
def add(lowering: Lowering, node: Node) -> Value:
    """a + b or a - b."""
    given = [value for value in node.inputs if value is not None]
    total = given[0]
    for value in given[1:]:
        total = plus(lowering, total, negated(lowering, value) if node.kind == "Sub" else value)
    return total


def plus(lowering: Lowering, a: Value, b: Value) -> Value:
    """a + b."""
    if isinstance(a, np.ndarray):
        a, b = b, a
    if isinstance(b, np.ndarray):
        return plus_constant(lowering, a, b)
    if isinstance(a, View) and isinstance(b, View):
        for one, other in ((a, b), (b, a)):
            if shifted := shifted_norm(lowering, one, other):
                return shifted
    return lowering.added(lowering.view(a), lowering.view(b))


def plus_constant(lowering: Lowering, value: Value, constant: NDArray[Any]) -> Value:
    """value + constant."""
    if isinstance(value, Scores) and not constant.any():
        return value
    if isinstance(value, Wave):
        value = lowering.view(value)
    if not isinstance(value, View) or constant.ndim > len(value.dims):
        raise NotCovered(f"adds a constant of shape {constant.shape} to {describe(value)}")
    if not constant.any():
        return value
    if constant.size == 1 and lowering.tensor(value).channels > 1:
        return replace(value, plus=value.plus + float(constant.ravel()[0]))
    plain = lowering.view(value)
    bias = lowering.per_channel(plain, constant)
    if bias is None:
        raise NotCovered(f"adds a constant of shape {constant.shape} to {describe(value)}, expected one by channel")
    return lowering.biased(plain, bias)


def shifted_norm(lowering: Lowering, norm: View, shift: View) -> View | None:
    """norm * (1 + scale) + shift, if that is what it is."""
    op = lowering.producers.get(norm.tensor)
    if not isinstance(op, GroupNorm) or op.scale is None or op.shift is not None or op.silu:
        return None
    if (norm.factor, norm.plus, shift.plus) != (1.0, 0.0, 0.0):
        return None
    part = lowering.part(norm, shift)
    return None if part is None else lowering.again(norm, msgspec.structs.replace(op, shift=part))


@lowers("Neg")
def negative(lowering: Lowering, node: Node) -> Value:
    """-x."""
    return negated(lowering, node.inputs[0])


def negated(lowering: Lowering, value: Value | None) -> Value:
    """-value."""
    if isinstance(value, np.ndarray):
        return np.asarray(np.negative(value))
    return by_constant(lowering, value, np.array(-1.0))
