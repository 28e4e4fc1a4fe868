"""What the native engine has no operation for is refused by the node's name and operator, with the reason."""

import numpy as np
import pytest
from kit.compiler.graphs import graph, model_info

from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.program import NotCovered

RNG = np.random.default_rng(0)
STEM = "h = Conv <pads = [1, 1, 1, 1]> (x, w) "
WEIGHTS = {
    "w": RNG.standard_normal((8, 2, 3, 3)),
    "v": RNG.standard_normal((8, 8, 1, 1)),
    "vector": RNG.standard_normal((8, 1, 1)),
    "map": RNG.standard_normal((1, 8, 6, 4)),
    "matrix": RNG.standard_normal((4, 8)),
    "two": np.float32(2),
    "one_i": np.array([1]),
    "zero_i": np.array([0]),
    "to_four": np.array([4]),
    "split": np.array([1, 5]),
    "border": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "mixed": np.array([-1, 48]),
    "scales": np.array([1, 1, 2, 2], np.float32),
}

CASES = {
    "an operator": ("output = Erf (h)", "'output' \\(Erf\\): the native engine has no such operation"),
    "another domain": ("output = Erf (h)", None),
    "groups": ("output = Conv <group = 2> (x, w1)", "\\(Conv\\): has 2 groups, expected 1"),
    "dilation": ("output = Conv <dilations = [2, 2]> (h, w8)", "\\(Conv\\): has strides \\[1\\] and dilations \\[2\\]"),
    "stride": ("output = Conv <strides = [3, 3]> (h, v)", "\\(Conv\\): has strides \\[3\\] and dilations \\[1\\]"),
    "weights that are computed": (
        "g = GlobalAveragePool (h) output = Conv (h, g)",
        "\\(GlobalAveragePool\\): the native engine has no such operation",
    ),
    "gain of what is no norm": ("output = Mul (h, vector)", "\\(Mul\\): multiplies shape .* by a constant of shape"),
    "a constant map": ("output = Add (h, map)", "\\(Add\\): adds a constant of shape \\(1, 8, 6, 4\\) to a tensor"),
    "a gate of something else": ("s = Sigmoid (h) k = Conv (h, v) output = Mul (k, s)", "sigmoid of something else"),
    "a gate alone": ("output = Sigmoid (h)", "reads a sigmoid of shape .*, expected a tensor"),
    "a product of maps": ("output = Mul (h, h)", "\\(Mul\\): multiplies a tensor of shape .* and a tensor of shape"),
    "a quotient of maps": ("output = Div (h, h)", "\\(Div\\): divides by a tensor"),
    "some rows": (
        "output = Slice (h, one_i, to_four, two_i)",
        "\\(Slice\\): takes 1:4 of 6 pixels or mixed parts; only channels can be sliced",
    ),
    "some channels as a map": (
        "s = Slice (h, one_i, to_four, one_i) output = Conv (s, w3)",
        "\\(Conv\\): reads shape \\(997, 3, 6, 4\\) of a tensor of 8x6x4",
    ),
    "every other channel": ("output = Slice (h, one_i, to_four, one_i, two_steps)", "\\(Slice\\): takes every \\[2\\]"),
    "a pad that nothing takes up": (
        "p = Pad (h, border) e = Identity (p) output = Add (e, e)",
        "\\(Add\\): reads a padded map of shape \\(997, 8, 8, 6\\)",
    ),
    "a pad of edges": (
        'p = Pad <mode = "edge"> (h, border) output = Conv (p, v)',
        "\\(Pad\\): pads with something other",
    ),
    "bilinear": ('output = Resize <mode = "linear"> (h, , scales)', "\\(Resize\\): does not repeat every pixel"),
    "a pool of 3x3": (
        "output = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (h)",
        "\\(AveragePool\\): is no mean of 2 x 2 pixels",
    ),
    "mixed axes": (
        "a = Transpose <perm = [0, 2, 3, 1]> (h) b = Reshape (a, mixed) output = MatMul (b, m48)",
        "\\(Reshape\\): reshapes to",
    ),
    "softmax of a map": ("output = Softmax (h)", "\\(Softmax\\): is of a tensor .*, expected attention scores"),
    "products over pixels": (
        "a = Transpose <perm = [0, 1, 3, 2]> (h) output = MatMul (h, a)",
        "\\(MatMul\\): multiplies shape .*: expected attention",
    ),
    "a part of the channels in a layer": (
        "a = Transpose <perm = [0, 2, 3, 1]> (h) s = Slice (a, zero_i, to_four, three_i) output = MatMul (s, matrix)",
        "\\(MatMul\\): multiplies the last dimension .* not all 8 channels of a tensor",
    ),
    "t by itself": ("output = Add (h, t)", "\\(Add\\): reads a multiple of t of shape \\(1,\\), expected a tensor"),
    "t as a whole number": (
        "i = Cast <to = 7> (t) output = Add (h, i)",
        "\\(Cast\\): turns a multiple of t .* into INT64",
    ),
    "the logarithm of t": ("l = Log (t) output = Add (h, l)", "\\(Log\\): the native engine has no such operation"),
    "random numbers": ("r = RandomNormal <shape = [8, 1, 1]> () output = Add (h, r)", "\\(RandomNormal\\): the native"),
    "the number of channels": ("output = Identity (x)", "returns a tensor of shape \\(997, 2, 6, 4\\), expected 8x6x4"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case):
    nodes, message = CASES[case]
    more = {
        "w1": RNG.standard_normal((8, 1, 3, 3)),
        "w3": RNG.standard_normal((8, 3, 1, 1)),
        "w8": RNG.standard_normal((8, 8, 3, 3)),
        "two_i": np.array([2]),
        "three_i": np.array([3]),
        "two_steps": np.array([2]),
        "m48": RNG.standard_normal((48, 8)),
    }
    data = graph(STEM + nodes, **WEIGHTS, **more)
    if case == "another domain":
        data = data.replace(b"Erf", b"ERF")
        message = "\\(ERF\\): the native engine has no such operation"
    with pytest.raises(NotCovered, match=message):
        lower(data, model_info((2, 6, 4), 8))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ("f = Cast <to = 1> (label) output = Mul (h, f)", "\\(Cast\\): turns a tensor of shape \\(997,\\) into FLOAT"),
        ("e = Gather <axis = 1> (w, label) output = Add (h, e)", "\\(Gather\\): chooses by the label from a table"),
        ("e = Equal (label, zero_i) output = Where (e, h, h)", "\\(Equal\\): the native engine has no such operation"),
        ("output = Add (h, label)", "\\(Add\\): it computes with the label, which can only choose a row"),
    ],
)
def test_labels_only_choose_rows(nodes, message):
    with pytest.raises(NotCovered, match=message):
        lower(graph(STEM + nodes, label=True, **WEIGHTS), model_info((2, 6, 4), 8, classes=8))


def test_what_is_no_onnx_file():
    with pytest.raises(NotCovered, match="the network is not an ONNX file"):
        lower(b"nonsense", model_info((2, 6, 4), 8))
