"""Turns an ONNX graph into a program, node by node.

Every value is a constant, a view of a tensor that some operation writes, or an expression that waits for the node that
completes an operation (`values`). Nodes with constant inputs are computed; the batch is a number that stands for any
(`views.BATCH`), so that shape arithmetic is constant too. Nothing depends on the names or the order of nodes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pysdk.errors import CheckpointError, EngineError
from pysdk.export.engines.native.from_onnx.emitter import Emitter
from pysdk.export.engines.native.from_onnx.values import Line, Value, describe, shape_of
from pysdk.export.engines.native.from_onnx.views import BATCH, LABEL, Component, View, coalesced
from pysdk.export.engines.native.program import Input, NotCovered, Output, Program, Tensor, tidy
from pysdk.export.lowering.surgery import inlined
from pysdk.onnx_file.model import read
from pysdk.plan.manifest import ModelInfo


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
_MODULES = ("rearranging", "arithmetic", "layers", "attention", "time")


def lowers(*kinds: str) -> Callable[[_Function], _Function]:
    """Register a function as what lowers these operators."""

    def register(function: _Function) -> _Function:
        HANDLERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def lower(data: bytes | memoryview, model: ModelInfo, weights: memoryview | None = None) -> Program:
    """The program of a plan's network.onnx, an operation for each layer; `fusion.fuse` makes it fast.

    Args:
        data: an ONNX file with inputs x (batch, C, H, W), t (1,) and label (batch,).
        model: C, H, W and the number of channels returned.
        weights: the plan's network.data, if it has one.

    Raises:
        NotCovered: the native engine lacks an operation; the message has the node's operator and name, and why.
    """
    for name in _MODULES:
        importlib.import_module(f"{__package__}.{name}")
    try:
        file = read(data, None if weights is None else len(weights))
    except EngineError as error:
        raise NotCovered(str(error)) from None
    proto = onnx.load_from_string(file.data)
    try:
        proto = inlined(proto)
    except CheckpointError as error:
        raise NotCovered(str(error)) from None
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    lowering = Lowering(opset=opset)
    channels, height, width = model.shape
    x = lowering.emit(Tensor(channels, height, width), lambda out: Input(out=out))
    label = View(LABEL, (coalesced([Component(BATCH, "b", 1)]),))
    known: dict[str, Value] = {"x": x, "t": Line(1.0, np.ones(1)), "label": label, **file.stored(weights)}
    (result,) = lowering.run(proto.graph, known)
    if shape_of(result) != (BATCH, model.out_channels, height, width):
        raise NotCovered(f"the network returns {describe(result)}, expected {model.out_channels}x{height}x{width}")
    lowering.program.ops.append(Output(x=lowering.as_map(result)))
    return tidy(lowering.program)


@dataclass(kw_only=True)
class Lowering(Emitter):
    """A graph that is being read, and the program that comes of it."""

    opset: int = 0

    def run(self, graph: onnx.GraphProto, known: dict[str, Value]) -> tuple[Value, ...]:
        """The values of a graph's outputs."""
        env = dict(known)
        inside = (tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL)
        env.update({tensor.name: numpy_helper.to_array(tensor) for tensor in inside})
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


def evaluate(node: Node, inputs: list[NDArray[Any] | None]) -> tuple[NDArray[Any], ...]:
    """A node computed on these arrays."""
    names = [name for name in node.proto.input if name]
    given = [value for value in inputs if value is not None]
    evaluator = ReferenceEvaluator(node.proto, opsets={"": node.opset})
    return tuple(np.asarray(value) for value in evaluator.run(None, dict(zip(names, given, strict=True))))
