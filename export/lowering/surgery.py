"""Foreign ONNX graphs in the form a plan keeps: inputs x (batch, C, H, W), t (1,), label (batch,), output `output`.

Nodes are added around the graph; nothing inside is changed but its names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, compose, helper, inliner, numpy_helper

from pysdk.errors import CheckpointError, ExportError
from pysdk.export.lowering.onnx_files import SMALLEST, OnnxFiles, WeightsFile, is_large, move_out
from pysdk.export.lowering.tensor_roles import Port, TensorRoles
from pysdk.export.source_file import check_file
from pysdk.onnx_file.tensors import DTYPES
from pysdk.onnx_file.wire import MAX_FIELDS

MIN_OPSET = 8
"""The first with Expand."""

_INSIDE = "network/"
_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}


def read_model(path: Path) -> tuple[onnx.ModelProto, memoryview | None]:
    """An ONNX file with its external data, which may lie in plain files beside it and nowhere else; functions inlined.

    If that is too large for one file, the second is network.data, and the model refers to it; else None.

    Raises:
        CheckpointError: missing, damaged, with weights elsewhere, or with functions that call each other too often.
        ExportError: there is no room for network.data while the plan is built.
    """
    check_file(path)
    try:
        model = onnx.load_model(path, load_external_data=False)
        outside = [tensor for tensor in all_tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    except Exception as error:  # protobuf's exceptions have no public base class
        raise CheckpointError(f"{str(path)!r} is not an ONNX file: {one_line(error)}") from None
    locations = {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"}
    size = path.stat().st_size
    for location in sorted(locations):
        beside = path.parent / location
        if Path(location).name != location or beside.is_symlink():
            raise CheckpointError(
                f"{str(path)!r} keeps weights in {location!r}; only files beside it are read, not paths or links"
            )
        if not beside.is_file():
            raise CheckpointError(f"{str(path)!r} keeps weights in {location!r}, which is not beside it")
        size += beside.stat().st_size
    weights = None
    try:
        if is_large(size):
            onnx.checker.check_model(str(path))
            weights = gathered(model, path.parent)
        else:
            onnx.load_external_data_for_model(model, str(path.parent))
            onnx.checker.check_model(model)
    except ExportError:
        raise
    except Exception as error:  # checker and loader share no base class
        raise CheckpointError(f"{str(path)!r} is not a valid ONNX model: {one_line(error)}") from None
    found = opset(model)
    if found < MIN_OPSET:
        raise CheckpointError(f"{str(path)!r} has opset {found}, expected {MIN_OPSET} or newer; export it again")
    return inlined(model), weights


def gathered(model: onnx.ModelProto, folder: Path) -> memoryview | None:
    """network.data with the model's large initializers, wherever they were; its other tensors come into the model."""
    file, initializers = WeightsFile(), list(model.graph.initializer)
    del model.graph.initializer[:]
    onnx.load_external_data_for_model(model, str(folder))
    for tensor in initializers:
        values = numpy_helper.to_array(tensor, str(folder))
        if tensor.data_type in DTYPES and values.nbytes >= SMALLEST:
            move_out(tensor, values, file)
        elif tensor.data_location == TensorProto.EXTERNAL:
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    model.graph.initializer.extend(initializers)
    return file.mapped()


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions: what calls one has its nodes instead.

    Raises:
        CheckpointError: that would be more nodes than a plan takes: functions that call each other twice double them.
    """
    if not model.functions:
        return model
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    counts: dict[tuple[str, str], float] = {}

    def nodes(inside: Sequence[onnx.NodeProto]) -> float:
        return sum(
            1 + called((node.domain, node.op_type)) + sum(nodes(g.node) for g in _graphs(node)) for node in inside
        )

    def called(name: tuple[str, str]) -> float:
        if name in bodies and name not in counts:
            counts[name] = math.inf  # while it is counted: whoever calls itself never ends
            counts[name] = nodes(bodies[name])
        return counts.get(name, 0)

    try:
        total = nodes(model.graph.node)
    except RecursionError:
        total = math.inf
    if total > MAX_FIELDS:
        raise CheckpointError(
            f"the network's functions call each other: without them it has {total:,.0f} nodes, more than the "
            f"{MAX_FIELDS:,} a plan can have; export it again without functions"
        )
    return inliner.inline_local_functions(model)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes."""
    for attribute in node.attribute:
        yield from ([attribute.g] if attribute.HasField("g") else [])
        yield from attribute.graphs


def all_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every constant tensor: initializers and attributes, in subgraphs and functions as well."""

    def of_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[TensorProto]:
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in (graph for node in nodes for graph in _graphs(node)):
            yield from of_graph(graph)

    def of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        yield from of_nodes(graph.node)

    yield from of_graph(model.graph)
    for function in model.functions:
        yield from of_nodes(function.node)


def opset(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def inputs(model: onnx.ModelProto) -> dict[str, Port]:
    """The inputs that have no value in the file, by name."""
    given = {tensor.name for tensor in model.graph.initializer}
    return {value.name: _port(value) for value in model.graph.input if value.name not in given}


def _port(value: onnx.ValueInfoProto) -> Port:
    axes = value.type.tensor_type.shape.dim
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None for axis in axes)
    kind = TensorProto.DataType.Name(element_type(value))
    return Port(value.name, _DTYPES.get(kind, kind.lower()), shape)


def element_type(value: onnx.ValueInfoProto) -> int:
    """TensorProto's number of the dtype."""
    return int(value.type.tensor_type.elem_type)


def adapt(model: onnx.ModelProto, roles: TensorRoles, shape: tuple[int, int, int]) -> onnx.ModelProto:
    """A model of the plan's form around `model`; its output's channels are still open, see `close`."""
    types = {value.name: element_type(value) for value in [*model.graph.input, *model.graph.output]}
    adapted = compose.add_prefix(model, _INSIDE)
    adapted.ir_version = max(model.ir_version, 4)  # from 4 on, initializers need not be inputs too
    graph = adapted.graph
    before = [
        *_chain("x", _INSIDE + roles.x, _transposed(roles, [0, 2, 3, 1]) + _cast(types[roles.x], TensorProto.FLOAT)),
        *_time(roles, types[roles.t]),
    ]
    batch = ("batch", *shape)
    new_inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, batch),
        helper.make_tensor_value_info("t", TensorProto.FLOAT, (1,)),
    ]
    if roles.label is not None:
        before += _chain("label", _INSIDE + roles.label, _cast(types[roles.label], TensorProto.INT64))
        new_inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ("batch",)))
    after = _chain(
        _INSIDE + roles.output,
        "output",
        _cast(TensorProto.FLOAT, types[roles.output]) + _transposed(roles, [0, 3, 1, 2]),
    )
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.extend(new_inputs)
    graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ("batch", None, None, None)))
    return adapted


def close(model: onnx.ModelProto, shape: tuple[int, int, int], weights: memoryview | None) -> OnnxFiles:
    """The finished files, once the output's (channels, H, W) is known."""
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("output", TensorProto.FLOAT, ("batch", *shape)))
    return OnnxFiles(bytes(model.SerializeToString()), weights)


Step = tuple[str, list[str], dict[str, Any]]
"""Operator, its inputs after the first, attributes."""


def _transposed(roles: TensorRoles, axes: list[int]) -> list[Step]:
    return [("Transpose", [], {"perm": axes})] if roles.channels_last else []


def _cast(to: int, from_: int) -> list[Step]:
    return [("Cast", [], {"to": to})] if to != from_ else []


def _chain(source: str, target: str, steps: list[Step]) -> list[onnx.NodeProto]:
    """Nodes that turn the tensor `source` into `target`."""
    steps = steps or [("Identity", [], {})]
    names = [source, *(f"{target}/{index}" for index in range(1, len(steps))), target]
    return [
        helper.make_node(operator, [names[index], *more], [names[index + 1]], name=f"{target}/{operator}", **attributes)
        for index, (operator, more, attributes) in enumerate(steps)
    ]


def _time(roles: TensorRoles, kind: int) -> list[onnx.NodeProto]:
    """t (1,) as the graph takes it; the chain has one value for the whole batch."""
    steps = _cast(kind, TensorProto.FLOAT)
    if roles.time_shape == "one":
        return _chain("t", _INSIDE + roles.t, steps)
    if roles.time_shape == "scalar":
        empty = helper.make_tensor("scalar_shape", TensorProto.INT64, (0,), [])
        before = [helper.make_node("Constant", [], ["t/shape"], value=empty)]
        return before + _chain("t", _INSIDE + roles.t, [*steps, ("Reshape", ["t/shape"], {})])
    first = helper.make_tensor("first", TensorProto.INT64, (1,), [0])
    before = [
        helper.make_node("Shape", ["x"], ["x/shape"]),
        helper.make_node("Constant", [], ["x/first"], value=first),
        helper.make_node("Gather", ["x/shape", "x/first"], ["t/shape"], axis=0),
    ]
    return before + _chain("t", _INSIDE + roles.t, [*steps, ("Expand", ["t/shape"], {})])


def one_line(error: Exception) -> str:
    """What it says, in a line of bounded length."""
    return " ".join(str(error).split())[:300]
