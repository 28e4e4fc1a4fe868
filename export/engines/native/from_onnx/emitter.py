"""The program while it is written: new operations, and the sums and products that become part of earlier ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from msgspec.structs import replace as changed
from numpy.typing import NDArray

from pysdk.export.engines.native.from_onnx.values import Value, Wave, describe
from pysdk.export.engines.native.from_onnx.views import LABEL, Component, View, broadcast, coalesced, covers, map_view
from pysdk.export.engines.native.program import (
    Add,
    AnyOp,
    Conv,
    GroupNorm,
    Linear,
    NotCovered,
    Program,
    Scale,
    Silu,
    Tensor,
    Timestep,
)


@dataclass
class Emitter:
    """The program so far.

    Attributes:
        program: its operations, tensors and weights; what nothing reads is dropped at the end.
        producers: the operation that writes each tensor.
    """

    program: Program = field(default_factory=Program)
    producers: dict[int, AnyOp] = field(default_factory=dict)
    _made: dict[object, int] = field(default_factory=dict)

    def emit(self, tensor: Tensor, make: Callable[[int], AnyOp], key: object = None) -> View:
        """A new operation and the map it writes; with a `key`, the one made before if there is one."""
        if key is not None and key in self._made:
            return map_view(self._made[key], tensor)
        index = len(self.program.tensors)
        self.program.tensors.append(tensor)
        op = make(index)
        self.program.ops.append(op)
        self.producers[index] = op
        if key is not None:
            self._made[key] = index
        return map_view(index, tensor)

    def weight(self, values: NDArray[Any]) -> int:
        """A weight's index."""
        self.program.weights.append((np.ascontiguousarray(values, np.float32),))
        return len(self.program.weights) - 1

    def tensor(self, view: View) -> Tensor:
        """The tensor a view looks at."""
        if view.tensor == LABEL:
            raise NotCovered("it computes with the label, which can only choose a row of an embedding")
        return self.program.tensors[view.tensor]

    def view(self, value: Value | None) -> View:
        """`value` as a view without arithmetic that is not done yet."""
        if isinstance(value, Wave):
            value = self.sines(value)
        if not isinstance(value, View):
            raise NotCovered(f"reads {'nothing' if value is None else describe(value)}, expected a tensor")
        tensor = self.tensor(value)
        if value.factor != 1.0:
            source, factor = value.tensor, value.factor
            scaled = self.emit(tensor, lambda out: Scale(x=source, out=out, factor=factor), ("scale", source, factor))
            value = replace(value, tensor=scaled.tensor, factor=1.0)
        if value.plus != 0.0:
            value = self.biased(View(value.tensor, value.dims, value.first), np.full(tensor.channels, value.plus))
        return value

    def as_map(self, value: Value | None) -> int:
        """The tensor that `value` is the whole of, as (batch, channels, height, width)."""
        view = self.view(value)
        tensor = self.tensor(view)
        whole = map_view(view.tensor, tensor)
        images = (whole.dims[0], ()) if tensor.shared else (whole.dims[0],)
        flat = (whole.dims[1], coalesced([Component(tensor.pixels, "p", 1)]))
        if view.first or view.dims[0] not in images or view.dims[1:] not in (whole.dims[1:], flat, flat[:1]):
            raise NotCovered(
                f"reads shape {view.shape} of a tensor of {tensor.channels}x{tensor.height}x{tensor.width}: "
                "not its channels, height and width in this order"
            )
        return view.tensor

    def unary(self, value: Value | None, make: Callable[[int, int], AnyOp], key: str) -> View:
        """An elementwise operation; the result is seen as its input is."""
        view = self.view(value)
        source = view.tensor
        out = self.emit(self.tensor(view), lambda out: make(source, out), (key, source))
        return View(out.tensor, view.dims, view.first)

    def silu(self, value: Value | None) -> View:
        """x * sigmoid(x)."""
        return self.unary(value, lambda x, out: Silu(x=x, out=out), "silu")

    def biased(self, view: View, bias: NDArray[Any]) -> View:
        """view + bias, by channel of its tensor."""
        op = self.producers.get(view.tensor)
        bias = bias.astype(np.float64)
        if isinstance(op, GroupNorm) and op.scale is None and not op.silu:
            beta = self.weight(self.program.weight(op.beta) + bias)
            return self.again(view, changed(op, beta=beta))
        if not isinstance(op, Conv | Linear):  # it has no bias of its own
            return self.constant_added(view, bias)
        if op.bias is not None:
            bias = bias + self.program.weight(op.bias)
        return self.again(view, changed(op, bias=self.weight(bias)))

    def constant_added(self, view: View, values: NDArray[np.float64]) -> View:
        """view + values by channel: the values are a linear layer of sin(pi / 2)."""
        tensor = self.tensor(view)
        one = self.sines(Wave(1.0, np.zeros((1, 1)), np.ones((1, 1))))
        weight = self.weight(values[:, None])
        vector = self.emit(Tensor(len(values), 1, 1, True), lambda out: Linear(x=one.tensor, out=out, weight=weight))
        total = self.emit(tensor, lambda out: Add(a=view.tensor, b=vector.tensor, out=out))
        return View(total.tensor, view.dims, view.first)

    def again(self, view: View, op: AnyOp) -> View:
        """A changed copy of what made `view`, seen alike; the original is dropped if nothing else reads it."""
        out = self.emit(self.tensor(view), lambda out: changed(op, out=out))
        return View(out.tensor, view.dims, view.first)

    def added(self, one: View, other: View) -> View:
        """The sum of two tensors of one shape, or of a map and a vector."""
        one, other = self.view(one), self.view(other)
        if components_of(one, "p") < components_of(other, "p"):
            one, other = other, one
        a, b, shape = broadcast(one, other)
        tensor, added = self.tensor(one), self.tensor(other)
        vector = added.pixels == 1
        if not (covers(one, tensor) and covers(other, added) and added.channels == tensor.channels):
            raise NotCovered(
                f"adds shapes {one.shape} and {other.shape}: some channels of a tensor, or in another order"
            )
        if not vector and tensor.pixels != added.pixels:
            raise NotCovered(f"adds maps of {tensor.pixels} and {added.pixels} pixels")
        dims = []
        for left, right in zip(a, b, strict=True):
            same = left == right or (vector and left.axis == "p" and right.axis is None)
            images = {left.axis, right.axis} <= {"b", None}
            if not (same or images):
                raise NotCovered(f"adds shapes {one.shape} and {other.shape} that do not match axis by axis")
            dims.append(right if left.axis is None else left)
        result = Tensor(tensor.channels, tensor.height, tensor.width, tensor.shared and added.shared)
        out = self.emit(result, lambda out: Add(a=one.tensor, b=other.tensor, out=out))
        return View(out.tensor, View(0, (tuple(dims),)).reshape(shape).dims)

    def part(self, one: View, other: View) -> tuple[int, int] | None:
        """(tensor, first channel) if `other` is a vector with a value for each channel of the map `one`, else None."""
        if other.factor != 1.0 or other.tensor == LABEL or self.tensor(other).pixels != 1:
            return None
        a, b, _ = broadcast(one, other)
        for left, right in zip(a, b, strict=True):
            by_channel = left.axis == right.axis == "c" and left.stride == right.stride
            if not by_channel and (left.axis == "c" or right.axis not in ("b", None)):
                return None
        return (other.tensor, other.first)

    def sines(self, wave: Wave) -> View:
        """Sines of t as a vector, one for the whole batch: every row has to be the same."""
        *rows, channels = wave.slope.shape
        slopes, turns = (array.reshape(-1, channels) for array in (wave.slope, wave.quarter_turns))
        if (slopes != slopes[0]).any() or (turns != turns[0]).any():
            raise NotCovered("embeds several multiples of t")

        def make(out: int) -> Timestep:
            frequencies, quarter_turns = self.weight(slopes[0]), self.weight(turns[0])
            return Timestep(out=out, frequencies=frequencies, quarter_turns=quarter_turns, scale=wave.scale)

        key = ("timestep", wave.scale, slopes[0].tobytes(), turns[0].tobytes())
        vector = self.emit(Tensor(channels, 1, 1, True), make, key)
        dims = [coalesced([Component(size, None, 0)]) for size in rows]
        return View(vector.tensor, (*dims, coalesced([Component(channels, "c", 1)])))

    def per_channel(self, view: View, constant: NDArray[Any]) -> NDArray[np.float64] | None:
        """A constant that is joined with `view` as a value for each channel of its tensor; None if it is not."""
        if constant.ndim > len(view.dims):
            return None
        channels = self.tensor(view).channels
        sizes = (1,) * (len(view.dims) - constant.ndim) + constant.shape
        index = np.full((1,) * len(view.dims), view.first)
        for axis, (dim, size) in enumerate(zip(view.dims, sizes, strict=True)):
            steps = np.zeros(1, int)
            for part in dim:
                if part.axis == "c":
                    steps = (steps[:, None] + np.arange(part.size) * part.stride).ravel()
                elif size != 1:
                    return None
            shape = [1] * len(view.dims)
            shape[axis] = len(steps)
            index = index + steps.reshape(shape)
        if index.size != channels or view.first:
            return None
        values = np.empty(channels)
        values[index.ravel()] = np.broadcast_to(constant.reshape(sizes), index.shape).ravel()
        return values


def components_of(view: View, axis: str) -> int:
    """Steps of a view along an axis."""
    return sum(part.size for dim in view.dims for part in dim if part.axis == axis)
