"""Operators that only rearrange: nothing is computed for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from pysdk.export.engines.native.from_onnx.lowering import Lowering, Node, evaluate, lowers
from pysdk.export.engines.native.from_onnx.values import Bordered, Gate, Line, Scores, Value, Wave, describe, shape_of
from pysdk.export.engines.native.from_onnx.views import Component, View, coalesced, covers, map_view
from pysdk.export.engines.native.program import Concat, Embedding, NotCovered, Tensor

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def rearranged(node: Node, change: Callable[[View], View]) -> Value:
    """The node's first input, changed; timesteps and sines are arrays, for which the node itself is computed."""
    value = node.inputs[0]
    if isinstance(value, View):
        return change(value)
    if isinstance(value, Line):
        return Line(value.scale, *computed(node, value.slope))
    if isinstance(value, Wave):
        return Wave(value.scale, *computed(node, value.slope), *computed(node, value.quarter_turns))
    if isinstance(value, Gate):
        return Gate(change(value.x))
    raise NotCovered(f"rearranges {'nothing' if value is None else describe(value)}")


def computed(node: Node, array: NDArray[np.float64]) -> tuple[NDArray[Any], ...]:
    """The node on this array in place of its first input."""
    rest = [value if isinstance(value, np.ndarray) else None for value in node.inputs[1:]]
    return evaluate(node, [array, *rest])


@lowers("Identity", "Dropout")
def identity(lowering: Lowering, node: Node) -> Value:
    """x, also for Dropout, which does nothing when a network is used."""
    value = node.inputs[0]
    assert value is not None
    if node.kind == "Dropout" and node.outputs > 1:
        raise NotCovered("returns a mask")
    return value


@lowers("Cast")
def cast(lowering: Lowering, node: Node) -> Value:
    """Between float32 and float64, which are both computed in float32, and for labels between whole numbers."""
    value, to = node.inputs[0], node.attributes["to"]
    label = isinstance(value, View) and value.tensor < 0
    if to not in (_INTEGERS if label else _FLOATS):
        raise NotCovered(f"turns {describe(value)} into {TensorProto.DataType.Name(to)}")  # type: ignore[arg-type]
    return value  # type: ignore[return-value]


@lowers("Shape", "Size")
def shape(lowering: Lowering, node: Node) -> Value:
    """Sizes are constants while the graph is read."""
    sizes = shape_of(node.inputs[0])  # type: ignore[arg-type]
    if node.kind == "Size":
        return np.array(math.prod(sizes), np.int64)
    return np.array(sizes[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


@lowers("Reshape", "Flatten")
def reshape(lowering: Lowering, node: Node) -> Value:
    """numpy's reshape; 0 keeps a size unless allowzero."""
    value = node.inputs[0]
    found = shape_of(value)  # type: ignore[arg-type]
    if node.kind == "Flatten":
        axis = node.attributes.get("axis", 1)
        wanted = [math.prod(found[:axis]), math.prod(found[axis:])]
    else:
        wanted = [int(size) for size in node.constant(1, "shape")]
        if not node.attributes.get("allowzero", 0):
            wanted = [found[index] if size == 0 else size for index, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = math.prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = math.prod(found) // max(rest, 1)
    if math.prod(wanted) != math.prod(found):
        raise NotCovered(f"reshapes {found} to {tuple(wanted)}")
    if isinstance(value, Scores):
        if value.swapped or list(value.shape[-2:]) != wanted[-2:]:
            raise NotCovered("reshapes queries and keys of attention scores")
        return leading(value, lambda view: view.reshape([*wanted[:-2], *view.shape[-2:]]))
    return rearranged(node, lambda view: view.reshape(wanted))


@lowers("Transpose")
def transpose(lowering: Lowering, node: Node) -> Value:
    """numpy's transpose."""
    value = node.inputs[0]
    rank = len(shape_of(value))  # type: ignore[arg-type]
    order = list(node.attributes.get("perm", range(rank)[::-1]))
    if isinstance(value, Scores):
        last = order[-2:]
        if sorted(last) != [rank - 2, rank - 1]:
            raise NotCovered("moves queries or keys of attention scores away from the end")
        moved = leading(value, lambda view: view.transpose([*order[:-2], rank - 2, rank - 1]))
        return replace(moved, swapped=value.swapped != (last == [rank - 1, rank - 2]))
    return rearranged(node, lambda view: view.transpose(order))


def leading(scores: Scores, change: Callable[[View], View]) -> Scores:
    """Scores whose leading dimensions, images and heads, are changed."""
    return replace(scores, q=change(scores.q), k=change(scores.k))


@lowers("Squeeze", "Unsqueeze")
def squeeze(lowering: Lowering, node: Node) -> Value:
    """Dimensions of size 1 taken away or put in."""
    value = node.inputs[0]
    found = shape_of(value)  # type: ignore[arg-type]
    axes = node.integers(1, "axes", "axes")
    if node.kind == "Squeeze":
        axes = [index for index, size in enumerate(found) if size == 1] if axes is None else axes
        gone = {axis % len(found) for axis in axes}
        wanted = [size for index, size in enumerate(found) if index not in gone]
    else:
        wanted, new = list(found), len(found) + len(axes or ())
        for axis in sorted(axis % new for axis in axes or ()):
            wanted.insert(axis, 1)
    if isinstance(value, Scores):
        if wanted[-2:] != list(found[-2:]):
            raise NotCovered("takes queries or keys of attention scores apart")
        return leading(value, lambda view: view.reshape([*wanted[:-2], *view.shape[-2:]]))
    return rearranged(node, lambda view: view.reshape(wanted))


@lowers("Expand")
def expand(lowering: Lowering, node: Node) -> Value:
    """numpy's broadcast_to."""
    wanted = [int(size) for size in node.constant(1, "shape")]
    return rearranged(node, lambda view: view.expand(wanted))


@lowers("Slice")
def slice_(lowering: Lowering, node: Node) -> Value:
    """[start:stop] along some dimensions, without steps."""
    value = node.inputs[0]
    found = shape_of(value)  # type: ignore[arg-type]
    starts = node.integers(1, "starts", "starts") or []
    stops = node.integers(2, "ends", "ends") or []
    axes = node.integers(3, "axes", "axes") or list(range(len(starts)))
    steps = node.integers(4, "steps", "steps") or [1] * len(starts)
    if isinstance(value, Line | Wave):
        return rearranged(node, lambda view: view)
    if any(step != 1 for step in steps):
        raise NotCovered(f"takes every {steps}-th element")

    def change(view: View) -> View:
        for axis, start, stop in zip(axes, starts, stops, strict=True):
            first, last, _ = slice(start, stop).indices(found[axis])
            view = view.slice(axis % len(found), first, last)
        return view

    return rearranged(node, change)


@lowers("Split")
def split(lowering: Lowering, node: Node) -> Value | tuple[Value, ...]:
    """Consecutive slices along a dimension."""
    value = node.inputs[0]
    found = shape_of(value)  # type: ignore[arg-type]
    axis = node.attributes.get("axis", 0) % len(found)
    sizes = node.integers(1, "split", "sizes")
    if sizes is None:
        count = node.attributes.get("num_outputs", node.outputs)
        most = -(-found[axis] // count)
        sizes = [min(most, found[axis] - index * most) for index in range(count)]
    ends = np.cumsum(sizes)
    if isinstance(value, Wave):
        parts = [np.split(array, ends[:-1], axis) for array in (value.slope, value.quarter_turns)]
        return tuple(Wave(value.scale, *pair) for pair in zip(*parts, strict=True))
    if not isinstance(value, View):
        raise NotCovered(f"splits {describe(value)}")  # type: ignore[arg-type]
    return tuple(value.slice(axis, int(end) - size, int(end)) for size, end in zip(sizes, ends, strict=True))


@lowers("Gather")
def gather(lowering: Lowering, node: Node) -> Value:
    """A row of an embedding by label, or one index of a dimension."""
    table, index = node.inputs[0], node.inputs[1]
    axis = node.attributes.get("axis", 0)
    if isinstance(table, np.ndarray) and isinstance(index, View) and index.tensor < 0:
        return embedding(lowering, table, index, axis)
    if not isinstance(index, np.ndarray):
        raise NotCovered(f"chooses by {describe(index)}")  # type: ignore[arg-type]
    if isinstance(table, Line | Wave):
        return rearranged(node, lambda view: view)
    if index.size != 1:
        raise NotCovered(f"chooses {index.size} places of a dimension")

    def change(view: View) -> View:
        size = view.shape[axis]
        at = int(index.ravel()[0]) % size
        chosen = view.slice(axis % len(view.dims), at, at + 1)
        where = axis % len(view.dims)
        return chosen.reshape([*chosen.shape[:where], *index.shape, *chosen.shape[where + 1 :]])

    return rearranged(node, change)


def embedding(lowering: Lowering, table: NDArray[Any], label: View, axis: int) -> View:
    """table[label]: (batch, C)."""
    if axis != 0 or table.ndim != 2:
        raise NotCovered(f"chooses by the label from a table of shape {table.shape} along axis {axis}")
    weight = lowering.weight(table)
    channels = table.shape[1]
    out = lowering.emit(Tensor(channels, 1, 1), lambda out: Embedding(out=out, table=weight))
    return View(out.tensor, (*label.dims, coalesced([Component(channels, "c", 1)])))


@lowers("Concat")
def concat(lowering: Lowering, node: Node) -> Value:
    """Sines of t, or whole tensors one behind the other by channel."""
    given = [value for value in node.inputs if value is not None]
    axis = node.attributes["axis"]
    if any(isinstance(value, Wave) for value in given):
        return joined_waves(given, axis)
    views = [lowering.view(value) for value in given]
    axis %= len(views[0].dims)
    tensors = [lowering.tensor(view) for view in views]
    first, shared = tensors[0], {tensor.shared for tensor in tensors}
    for view, tensor in zip(views, tensors, strict=True):
        channels = coalesced([Component(tensor.channels, "c", 1)])
        others = [dim for index, dim in enumerate(view.dims) if index != axis]
        if not covers(view, tensor) or view.dims[axis] != channels:
            raise NotCovered(f"joins shape {view.shape} along axis {axis}, which is not all channels of a tensor")
        if others != [dim for index, dim in enumerate(views[0].dims) if index != axis] or len(shared) > 1:
            raise NotCovered("joins tensors of different height, width or batch")
    total = sum(tensor.channels for tensor in tensors)
    out = lowering.emit(
        Tensor(total, first.height, first.width, first.shared),
        lambda out: Concat(x=tuple(view.tensor for view in views), out=out),
    )
    dims = list(views[0].dims)
    dims[axis] = coalesced([Component(total, "c", 1)])
    return View(out.tensor, tuple(dims))


def joined_waves(values: list[Value], axis: int) -> Wave:
    """Sines behind sines; zeros and ones are sines too."""
    waves = []
    for value in values:
        if isinstance(value, np.ndarray) and np.isin(value, (0, 1)).all():
            waves.append(Wave(1.0, np.zeros(value.shape), value.astype(np.float64)))
        elif isinstance(value, Wave):
            waves.append(value)
        else:
            raise NotCovered(f"joins sines of t with {describe(value)}")
    scales = {wave.scale for wave in waves if wave.slope.any()}
    if len(scales) > 1:
        raise NotCovered("joins sines of t and of another multiple of t")
    return Wave(
        scales.pop() if scales else 1.0,
        np.concatenate([wave.slope for wave in waves], axis),
        np.concatenate([wave.quarter_turns for wave in waves], axis),
    )


@lowers("Pad")
def pad(lowering: Lowering, node: Node) -> Value:
    """Zeros around a map, which the convolution that follows takes over, or behind sines."""
    value = node.inputs[0]
    pads = node.integers(1, "pads", "pads") or []
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    filled = node.attributes.get("value", 0.0) if fill is None else np.asarray(fill).item()
    axes = node.integers(3, "axes", "axes")
    rank = len(shape_of(value))  # type: ignore[arg-type]
    if node.attributes.get("mode", b"constant") not in (b"constant", "constant") or filled != 0.0:
        raise NotCovered("pads with something other than zeros")
    if isinstance(value, Wave):
        return rearranged(node, lambda view: view)
    before, after = [0] * rank, [0] * rank
    axes = list(range(rank)) if axes is None else axes
    for index, axis in enumerate(axes):
        before[axis], after[axis] = pads[index], pads[index + len(axes)]
    if not any(before) and not any(after):
        return value  # type: ignore[return-value]
    if not isinstance(value, View) or rank != 4 or any(before[:2]) or any(after[:2]) or min(before + after) < 0:
        raise NotCovered(f"pads {describe(value)} by {pads}")  # type: ignore[arg-type]
    tensor = lowering.as_map(value)
    whole = map_view(tensor, lowering.program.tensors[tensor])
    return Bordered(View(tensor, (value.dims[0], *whole.dims[1:])), (before[2], before[3], after[2], after[3]))
