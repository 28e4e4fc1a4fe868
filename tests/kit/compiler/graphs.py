"""Small ONNX graphs in text, and what ONNX Runtime and a compiled program make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from pysdk.export.engines.native import float64
from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.fusion import fuse
from pysdk.export.engines.native.program import Attention, Program, Timestep
from pysdk.plan.manifest import ModelInfo

TOLERANCE = 5e-6
"""Largest |ONNX Runtime - float64| / max |float64|: ONNX Runtime computes in float32."""


FOLDED = 1e-6
"""The same between a program before and after fusion if weights were multiplied and rounded to float32; else 1e-12."""

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    """Standard normal numbers; each test begins anew."""
    return RNG.standard_normal(shape)


STEM = "h = Conv <pads = [1, 1, 1, 1]> (x, stem_w, stem_b)"
STEM_WEIGHTS = {"stem_w": draw(8, 2, 3, 3) / 3, "stem_b": draw(8)}
SHAPE = (2, 6, 4)
"""Weights of a first convolution, h, with 8 channels over images of SHAPE."""

NORM = (
    "r = Reshape (h, by_group) i = InstanceNormalization <epsilon = 0.001> (r, ones, zeros) s = Shape (h) "
    "n = Reshape (i, s) m = Mul (n, gain) g = Add (m, offset)"
)
NORM_WEIGHTS = {
    "by_group": np.array([0, 4, -1]),
    "ones": draw(4),
    "zeros": draw(4),
    "gain": draw(8, 1, 1),
    "offset": draw(8, 1, 1),
    **STEM_WEIGHTS,
}
"""Weights of a group norm of h, n, in the five operations that torch writes."""


def graph(nodes: str, *, opset: int = 18, label: bool = False, **constants: Any) -> bytes:
    """An ONNX file with inputs x (batch, C, H, W), t (1,) and maybe label, from nodes in ONNX's text form.

    Arrays of float64 become float32.
    """
    inputs = "float[batch,c,h,w] x, float[1] t" + (", int64[batch] label" if label else "")
    text = (
        f'<ir_version: 9, opset_import: ["": {opset}]> network ({inputs}) => (float[batch,d,e,f] output) {{ {nodes} }}'
    )
    model = parser.parse_model(text)
    for name, value in constants.items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return bytes(model.SerializeToString())


def model_info(shape: tuple[int, int, int], out_channels: int, classes: int | None = None) -> ModelInfo:
    """What a plan says of such a network."""
    return ModelInfo(name="graph", shape=shape, out_channels=out_channels, num_classes=classes)


def session(data: bytes) -> onnxruntime.InferenceSession:
    """The graph in ONNX Runtime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def assert_same(
    data: bytes, model: ModelInfo, timesteps: tuple[float, ...] = (0.0, 3.0, 999.0), batch: int = 3
) -> Program:
    """The fused program of a graph, after comparing it with ONNX Runtime and with itself before fusion."""
    plain = lower(data, model)
    program = fuse(plain)
    runner = session(data)
    rng = np.random.default_rng(5)
    for t in timesteps:
        x = rng.standard_normal((batch, *model.shape)).astype(np.float32)
        labels = rng.integers((model.num_classes or 1) + (model.null_label is not None), size=batch)
        feed = {"x": x, "t": np.array([t], np.float32), "label": labels}
        (expected,) = runner.run(["output"], {node.name: feed[node.name] for node in runner.get_inputs()})
        found = float64.run(program, x, t, labels)
        largest = np.abs(found).max()
        assert largest > 1e-3  # zeros would agree with zeros
        # a phase is rounded to float32, by half of what is between it and the next, and its sine is off by as much
        phase = np.spacing(np.float32(t)) / 2 if any(isinstance(op, Timestep) for op in program.ops) else 0.0
        assert np.abs(found - expected).max() <= (TOLERANCE + phase) * largest
        atol = FOLDED if any(isinstance(op, Attention) and op.heads == 1 for op in program.ops) else 1e-12
        np.testing.assert_allclose(float64.run(plain, x, t, labels), found, rtol=0, atol=atol * largest)
    return program


def kinds(program: Program) -> list[str]:
    """The operations between input and output."""
    return [str(op.__struct_config__.tag) for op in program.ops][1:-1]


def proto(data: bytes) -> onnx.ModelProto:
    """The parsed file."""
    return onnx.load_from_string(data)
