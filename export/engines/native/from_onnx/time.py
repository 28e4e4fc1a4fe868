"""The branch that depends on t alone: its sines."""

from __future__ import annotations

import numpy as np

from pysdk.export.engines.native.from_onnx.lowering import Lowering, Node, lowers
from pysdk.export.engines.native.from_onnx.values import Line, Wave, describe
from pysdk.export.engines.native.program import NotCovered


@lowers("Sin", "Cos")
def sine(lowering: Lowering, node: Node) -> Wave:
    """Sine or cosine of multiples of t."""
    value = node.inputs[0]
    if not isinstance(value, Line):
        raise NotCovered(f"is of {describe(value)}, expected a multiple of t")  # type: ignore[arg-type]
    turns = np.full(value.slope.shape, 0.0 if node.kind == "Sin" else 1.0)
    return Wave(value.scale, value.slope, turns)
