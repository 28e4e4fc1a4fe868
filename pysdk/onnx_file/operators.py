"""The operators that a stranger's network may have: those that exporters of denoisers and feature networks write.

Each ends, in a time that its inputs and its output bound, and opens nothing. Control flow and functions are not among
them: with a Loop, or functions that call each other, a file of 2 kB computes forever.
"""

from __future__ import annotations

from pysdk.errors import EngineError
from pysdk.onnx_file.model import OnnxFile

MAX_NODES = 50_000
"""The largest networks have less than half; ONNX Runtime may take a second to cancel loading so many."""

DOMAINS = {"", "ai.onnx"}
"""ONNX's own domain, by both its names. Our builders write operators of no other."""

_GROUPS = {
    "constants, and what the exporters of torch make of sizes": """
        Constant ConstantOfShape Range Shape Size Identity Cast CastLike EyeLike OneHot NonZero""",
    "moving values": """
        Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Pad Reshape ScatterElements ScatterND Slice
        SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze""",
    "each value by itself: embeddings of time, scales, activations of U-Nets, transformers and classifiers": """
        Abs Acos Add Asin Atan Ceil Celu Clip Cos Cosh Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Log
        Max Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
        Sub Sum Swish Tan Tanh ThresholdedRelu""",
    "masks, and the gradient of activations": """
        And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor""",
    "sums and choices along axes": """
        ArgMax ArgMin CumSum LogSoftmax ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare Softmax TopK""",
    "norms": """
        BatchNormalization GroupNormalization InstanceNormalization LRN LayerNormalization LpNormalization
        MeanVarianceNormalization RMSNormalization""",
    "layers with weights, and attention": "Attention Conv ConvTranspose Einsum Gemm MatMul RotaryEmbedding",
    "other resolutions": """
        AveragePool GlobalAveragePool GlobalMaxPool GridSample MaxPool Resize Upsample""",
    "nothing, in a network that is not trained": "Dropout",
    "weights in few bits": "DequantizeLinear QuantizeLinear",
}

OPERATORS = frozenset(name for names in _GROUPS.values() for name in names.split())
"""Left out on purpose: Loop, If, Scan, SequenceMap; LSTM, GRU and RNN, which hold loops; random numbers, which
would make the images of a seed differ; sequences, texts and optional values."""


def check(file: OnnxFile) -> None:
    """EngineError if a network is made of anything else, or of too many nodes."""
    reason = unusual(file)
    if reason is not None:
        raise EngineError(
            f"the network has {reason}, which can compute forever; give trust=True (--trust) if you know who made it"
        )


def unusual(file: OnnxFile) -> str | None:
    """The part of a network that runs only for those who trust it, or None."""
    nodes = file.messages["NodeProto"]
    if len(nodes) > MAX_NODES:
        return f"{len(nodes):,} nodes, more than {MAX_NODES:,}"
    functions = file.messages["FunctionProto"]
    if functions:
        return f"a function of its own, {functions[0].get('name', '')[:100]!r}"
    for node in nodes:
        domain, name = node.get("domain", ""), node.get("op_type", "")
        if domain not in DOMAINS:
            return f"the operator {name[:100]!r} of {domain[:100]!r}"
        if name not in OPERATORS:
            return f"the operator {name[:100]!r}"
    for attribute in file.messages["AttributeProto"]:
        if "g" in attribute or "graphs" in attribute:
            return f"a graph in the attribute {attribute.get('name', '')[:100]!r}"
    return None
