"""Float16 and bfloat16 networks: a pass over the float32 ONNX file that decides the precision of every operation.

TensorRT networks are strongly typed: an operation runs in the type that the file gives its inputs. The pass works on
the file and not on a torch module, because the file is what every source has (some come without a module), what a plan
keeps, and what it can be built from again. Inputs and the output stay float32. So do

- all that does not depend on x: the embeddings of time and label, small and sensitive;
- statistics and sums that need the range or the digits: normalisation, softmax, reductions, powers;
- what follows these element by element, up to the next convolution or matrix product, which saves a cast each way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference, version_converter

from pysdk.errors import ExportError
from pysdk.export.lowering.surgery import inlined, opset

TYPES = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38}

BFLOAT16_OPSET = 22
"""The first with bfloat16 convolutions."""

HEAVY = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
"""Operations of the body: they run in its precision, sums in float32."""

ELEMENTWISE = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Max", "Min", "Clip", "Where"),
    *("Sigmoid", "Relu", "LeakyRelu", "Elu", "Tanh", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Swish"),
}
MOVES = {
    *("Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Concat", "Split", "Expand", "Flatten", "Identity"),
    *("Gather", "Resize", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool"),
}
"""Both follow what they read; every other operation runs in float32."""

_NEAREST = b"nearest"
PEAKS = "peaks"


class Typed:
    """The network in another precision.

    Args:
        data: the float32 ONNX file.
        precision: "float16" or "bfloat16".
        emulated: compute everything in float32, and round to `precision` wherever the real one would: what ONNX
            Runtime can run on any processor. Output `peaks` then has the largest absolute value, before rounding, of
            each operation in `layers`.

    Attributes:
        model: the ONNX model.
        layers: the operations that run in `precision` and make new values, in order.
        counts: operations in `precision`, and in float32, of those that read float numbers.

    Raises:
        ExportError: a weight does not fit into the precision, or the graph has loops or branches.
    """

    def __init__(self, data: bytes, precision: str, *, emulated: bool = False) -> None:
        self.precision, self.emulated = precision, emulated
        self.kind = TYPES[precision]
        self.model = plain(onnx.load_from_string(data), BFLOAT16_OPSET if precision == "bfloat16" else 0)
        graph = self.model.graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        self._float = float_tensors(self.model)
        self._varying = depends_on(graph, "x")
        self._low: set[str] = set()
        self._casts: dict[tuple[str, bool], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self.layers: list[str] = []
        self._peaks: list[str] = []
        low = 0
        total = 0
        for node in list(graph.node):
            reads_float = any(name in self._float for name in node.input)
            is_low = self._runs_low(node)
            low, total = low + is_low, total + reads_float
            self._rewrite(node, is_low)
        self.counts = low, total - low
        self._finish()

    def _runs_low(self, node: onnx.NodeProto) -> bool:
        """Whether a node runs in the body's precision."""
        read = [name for name in node.input if name in self._float and name in self._varying]
        if not read or not any(name in self._float for name in node.output):
            return False
        if node.op_type in HEAVY:
            return True
        if node.op_type == "Resize" and not is_nearest(node):
            return False
        return node.op_type in ELEMENTWISE | MOVES and any(name in self._low for name in read)

    def _rewrite(self, node: onnx.NodeProto, is_low: bool) -> None:
        """Append the node with its inputs cast."""
        for index, name in enumerate(node.input):
            if name in self._float and not (node.op_type == "Resize" and index > 0):  # roi and scales are float32
                node.input[index] = self._cast(name, is_low)
        self._nodes.append(node)
        if not is_low:
            return
        for index, name in enumerate(node.output):
            if name not in self._float:
                continue
            self._low.add(name)
            if self.emulated and node.op_type not in MOVES:
                raw = f"{name}/exact"
                node.output[index] = raw
                self._round(raw, name)
                self._peak(raw)
                self.layers.append(f"{node.name or name} ({node.op_type})")

    def _cast(self, name: str, to_low: bool) -> str:
        """The tensor in the precision wanted; cast once, however often it is read."""
        if (name in self._low) == to_low:
            return name
        key = name, to_low
        if key not in self._casts:
            self._casts[key] = f"{name}/{self.precision if to_low else 'float32'}"
            target = self._casts[key]
            if name in self._weights:
                self.model.graph.initializer.append(self._weight(name, target))
            elif self.emulated and not to_low:
                self._casts[key] = name
            elif self.emulated:
                self._round(name, target)
            else:
                self._nodes.append(cast_node(name, target, self.kind if to_low else TensorProto.FLOAT))
        return self._casts[key]

    def _weight(self, name: str, target: str) -> TensorProto:
        values = numpy_helper.to_array(self._weights[name])
        rounded = self._rounded(values)
        if not np.isfinite(rounded.astype(np.float32)[np.isfinite(values)]).all():
            raise ExportError(
                f"weight {name!r} has values up to {np.abs(values).max():.4g}, more than {self.precision} holds "
                f"({LARGEST[self.precision]:.5g}); build with --precision {alternative(self.precision)}"
            )
        return numpy_helper.from_array(rounded.astype(np.float32) if self.emulated else rounded, target)

    def _rounded(self, values: NDArray[np.float32]) -> NDArray[np.generic]:
        with np.errstate(over="ignore"):
            return values.astype(helper.tensor_dtype_to_np_dtype(self.kind))

    def _round(self, source: str, target: str) -> None:
        self._nodes.append(cast_node(source, f"{target}/rounded", self.kind))
        self._nodes.append(cast_node(f"{target}/rounded", target, TensorProto.FLOAT))

    def _peak(self, name: str) -> None:
        peak = f"{name}/peak"
        self._nodes += [
            helper.make_node("Abs", [name], [f"{peak}/abs"]),
            helper.make_node("ReduceMax", [f"{peak}/abs"], [f"{peak}/max"], keepdims=0),
            helper.make_node("Reshape", [f"{peak}/max", "peaks/shape"], [peak]),
        ]
        self._peaks.append(peak)

    def _finish(self) -> None:
        """Put the nodes into the graph, a float32 output at their end, and drop weights that nothing reads."""
        graph = self.model.graph
        for value in graph.output:
            if value.name in self._low and not self.emulated:
                inner = f"{value.name}/{self.precision}"
                rename(self._nodes, value.name, inner)
                self._nodes.append(cast_node(inner, value.name, TensorProto.FLOAT))
        if self.emulated:
            graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "peaks/shape"))
            peaks = self._peaks or ["peaks/none"]
            if not self._peaks:
                graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "peaks/none"))
            self._nodes.append(helper.make_node("Concat", peaks, [PEAKS], axis=0))
            graph.output.append(helper.make_tensor_value_info(PEAKS, TensorProto.FLOAT, (len(peaks),)))
        read = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(kept)


def alternative(precision: str) -> str:
    """What to try where this precision has too small a range."""
    return "bfloat16" if precision == "float16" else "float32"


def plain(model: onnx.ModelProto, least_opset: int) -> onnx.ModelProto:
    """The model without functions and Constant nodes, of at least this opset."""
    model = inlined(model)
    if opset(model) < least_opset:
        try:
            model = version_converter.convert_version(model, least_opset)
        except Exception as error:  # the converter's errors share no base class
            raise ExportError(f"the network cannot be raised to opset {least_opset}: {error}") from error
    nodes = []
    for node in model.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ExportError(
                f"node {node.name!r} ({node.op_type}) holds a graph of its own, whose precision cannot be changed; "
                "build with --precision float32"
            )
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and values:
            values[0].name = node.output[0]
            model.graph.initializer.append(values[0])
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def float_tensors(model: onnx.ModelProto) -> set[str]:
    """Names of all float32 tensors."""
    inferred = shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in [*inferred.input, *inferred.output, *inferred.value_info]
    }
    types |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in types:
                raise ExportError(f"node {node.name!r} ({node.op_type}): the type of its output is not known")
    return {name for name, kind in types.items() if kind == TensorProto.FLOAT}


def depends_on(graph: onnx.GraphProto, source: str) -> set[str]:
    """The tensors whose values, not only their shapes, depend on the input `source`."""
    found = {source}
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and found & set(node.input):
            found.update(node.output)
    return found


def is_nearest(node: onnx.NodeProto) -> bool:
    """Whether a Resize copies values instead of mixing them."""
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    return not modes or modes[0] == _NEAREST


def cast_node(source: str, target: str, kind: int) -> onnx.NodeProto:
    """Cast of a tensor to a type."""
    return helper.make_node("Cast", [source], [target], name=f"cast/{target}", to=kind)


def rename(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    """Give a tensor another name in all nodes."""
    for names in _names(nodes):
        for index, name in enumerate(names):
            if name == old:
                names[index] = new


def _names(nodes: list[onnx.NodeProto]) -> Iterator[list[str]]:
    for node in nodes:
        yield node.input
        yield node.output


def in_precision(data: bytes, precision: str) -> bytes:
    """The network with a body of `precision`; `data` itself for "float32"."""
    if precision == "float32":
        return data
    return bytes(Typed(data, precision).model.SerializeToString())
