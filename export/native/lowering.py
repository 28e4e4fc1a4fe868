"""ONNX graph -> program, one node after the other.

Every value is a constant, a view of a tensor that some operation writes, or an expression that waits for the node that
completes an operation (`values`). Nodes with constant inputs are computed; the batch is a number that stands for any
(`views.BATCH`), so that shape arithmetic is constant too. Nothing depends on the names or the order of nodes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper
from onnx.reference import ReferenceEvaluator
from pysdk.export.native.program import (
    Add,
    AnyOp,
    Conv,
    GroupNorm,
    Input,
    Linear,
    NotCovered,
    Output,
    Program,
    Scale,
    Silu,
    Tensor,
    tidy,
)
from pysdk.export.native.values import Line, Value, Wave, describe, shape_of
from pysdk.export.native.views import BATCH, LABEL, Component, View, broadcast, coalesced, covers, map_view

from pysdk.manifest import ModelInfo


@dataclass(frozen=True)
class Node:
    """A node of the graph with its inputs' values; None for one that is left out."""

    kind: str
    name: str
    inputs: list[Value | None]
    attributes: dict[str, Any]
    outputs: int
    opset: int
    proto: onnx.NodeProto

    def constant(self, index: int, what: str) -> NDArray[Any]:
        """An input that has to be a constant."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, np.ndarray):
            raise NotCovered(f"its {what} is {'missing' if value is None else describe(value)}, expected a constant")
        return value

    def integers(self, index: int, attribute: str, what: str) -> list[int] | None:
        """Whole numbers given as an input (newer opsets) or an attribute; None if neither is."""
        if index < len(self.inputs) and self.inputs[index] is not None:
            return [int(value) for value in self.constant(index, what).ravel()]
        value = self.attributes.get(attribute)
        return None if value is None else [int(one) for one in np.atleast_1d(value)]


Handler: TypeAlias = Callable[["Lowering", Node], "Value | tuple[Value, ...]"]
HANDLERS: dict[str, Handler] = {}
_Function = TypeVar("_Function", bound=Handler)
_MODULES = ("layout", "arithmetic", "layers", "attention", "time")


def lowers(*kinds: str) -> Callable[[_Function], _Function]:
    """Register a function as what lowers these operators."""

    def register(function: _Function) -> _Function:
        HANDLERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def lower(data: bytes | memoryview, model: ModelInfo) -> Program:
    """The program of a plan's network.onnx, an operation for each layer; `fusion.fuse` makes it fast.

    Args:
        data: an ONNX file with inputs x (batch, C, H, W), t (1,) and label (batch,).
        model: C, H, W and the number of channels returned.

    Raises:
        NotCovered: the native engine lacks an operation; the message has the node's operator and name, and why.
    """
    for name in _MODULES:
        importlib.import_module(f"{__package__}.{name}")
    proto = onnx.load_from_string(bytes(data))
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    lowering = Lowering(opset)
    channels, height, width = model.shape
    x = lowering.emit(Tensor(channels, height, width), lambda out: Input(out=out))
    label = View(LABEL, (coalesced([Component(BATCH, "b", 1)]),))
    known: dict[str, Value] = {"x": x, "t": Line(1.0, np.ones(1)), "label": label}
    (result,) = lowering.run(proto.graph, known)
    if shape_of(result) != (BATCH, model.out_channels, height, width):
        raise NotCovered(f"the network returns {describe(result)}, expected {model.out_channels}x{height}x{width}")
    lowering.program.ops.append(Output(x=lowering.as_map(result)))
    return tidy(lowering.program)


@dataclass
class Lowering:
    """The program so far, and what the handlers of all operators share."""

    opset: int
    program: Program = field(default_factory=Program)
    producers: dict[int, AnyOp] = field(default_factory=dict)
    _made: dict[object, int] = field(default_factory=dict)

    # Reading.

    def run(self, graph: onnx.GraphProto, known: dict[str, Value]) -> tuple[Value, ...]:
        """The values of a graph's outputs."""
        env = dict(known)
        env.update({tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer})
        for proto in graph.node:
            try:
                results = self.node(proto, env)
            except NotCovered as error:
                if str(error).startswith("node "):  # of a subgraph
                    raise
                raise NotCovered(f"node {proto.name or proto.output[0]!r} ({proto.op_type}): {error}") from None
            env.update({name: value for name, value in zip(proto.output, results, strict=False) if name})
        return tuple(env[value.name] for value in graph.output)

    def node(self, proto: onnx.NodeProto, env: dict[str, Value]) -> tuple[Value, ...]:
        """The values of a node's outputs."""
        inputs = [env[name] if name else None for name in proto.input]
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}
        node = Node(proto.op_type, proto.name, inputs, attributes, len(proto.output), self.opset, proto)
        if proto.domain not in ("", "ai.onnx"):
            raise NotCovered(f"the operator is of domain {proto.domain!r}, not a standard one")
        if proto.op_type == "If":
            condition = bool(node.constant(0, "condition"))
            return self.run(attributes["then_branch" if condition else "else_branch"], env)
        if all(value is None or isinstance(value, np.ndarray) for value in inputs):
            return self.folded(node)
        if proto.op_type not in HANDLERS:
            raise NotCovered("the native engine has no such operation")
        result = HANDLERS[proto.op_type](self, node)
        return result if isinstance(result, tuple) else (result,)

    def folded(self, node: Node) -> tuple[Value, ...]:
        """A node of constants, computed."""
        if node.kind.startswith("Random") or node.kind in ("Bernoulli", "Multinomial", "Loop", "Scan"):
            raise NotCovered("the native engine has no such operation")
        return evaluate(node, list(node.inputs))  # type: ignore[arg-type]

    # Writing.

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

    # Views.

    def view(self, value: Value | None) -> View:
        """`value` as a view without arithmetic that is not done yet."""
        if isinstance(value, Wave):
            value = self.sines(value)
        if not isinstance(value, View):
            raise NotCovered(f"reads {'nothing' if value is None else describe(value)}, expected a tensor")
        tensor = self.tensor(value)
        if value.factor != 1.0:
            source, factor = value.tensor, value.factor
            scaled = self.emit(
                tensor, lambda out: Scale(x=source, out=out, factor=factor), ("scale", source, factor)
            )
            value = msgspec_free(value, scaled.tensor)
        if value.plus != 0.0:
            value = self.biased(View(value.tensor, value.dims, value.first), np.full(tensor.channels, value.plus))
        return value

    def as_map(self, value: Value | None) -> int:
        """The tensor of which `value` is the whole (batch, channels, height, width)."""
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
        """view + bias, by channel of the tensor: only what has a bias of its own can take it."""
        op = self.producers[view.tensor]
        bias = bias.astype(np.float64)
        if isinstance(op, GroupNorm) and op.scale is None and not op.silu:
            beta = self.weight(self.program.weight(op.beta) + bias)
            return self.again(view, msgspec.structs.replace(op, beta=beta))
        if not isinstance(op, Conv | Linear):
            raise NotCovered("adds a constant to what is no convolution, linear layer or group norm")
        if op.bias is not None:
            bias = bias + self.program.weight(op.bias)
        return self.again(view, msgspec.structs.replace(op, bias=self.weight(bias)))

    def again(self, view: View, op: AnyOp) -> View:
        """A changed copy of the operation that made `view`, seen alike; the first is dropped if nothing else reads it."""
        out = self.emit(self.tensor(view), lambda out: msgspec.structs.replace(op, out=out))
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
            raise NotCovered(f"adds shapes {one.shape} and {other.shape}: some channels of a tensor, or in another order")
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
        """Sines of t as a vector, one for the whole batch."""
        from pysdk.export.native.time import sines

        return sines(self, wave)

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


def msgspec_free(view: View, tensor: int) -> View:
    """`view` of another tensor, its factor done."""
    return View(tensor, view.dims, view.first, 1.0, view.plus)


def evaluate(node: Node, inputs: list[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
    """A node computed on these arrays."""
    names = [name for name in node.proto.input if name]
    given = [value for value in inputs if value is not None]
    evaluator = ReferenceEvaluator(node.proto, opsets={"": node.opset})
    return tuple(np.asarray(value) for value in evaluator.run(None, dict(zip(names, given, strict=True))))
