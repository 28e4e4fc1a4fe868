"""Each form that exporters give a layer is recognised, and computes what ONNX Runtime computes.

`assert_same` compares; the expected list of operations shows that nothing was left over.
"""

import numpy as np
import pytest
from kit.compiler.graphs import (
    NORM,
    NORM_WEIGHTS,
    SHAPE,
    STEM,
    STEM_WEIGHTS,
    assert_same,
    draw,
    graph,
    kinds,
    model_info,
)

from pysdk.export.engines.native.program import GroupNorm

# Convolutions and resampling.


RESIZE = (
    'Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> ({}, , scales)'
)
SCALES = {"scales": np.array([1, 1, 2, 2], np.float32)}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, stem_w, stem_b)", (1, 1, 1, 1)),
        ('c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, stem_w, stem_b)', (0, 0, 1, 1)),
        ('c = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, stem_w, stem_b)', (1, 1, 0, 0)),
        ("p = Pad (x, pads) c = Conv <strides = [2, 2]> (p, stem_w, stem_b)", (0, 0, 1, 1)),
        ("p = Pad (x, pads) c = Conv <pads = [2, 2, 0, 0], strides = [2, 2]> (p, stem_w, stem_b)", (2, 2, 1, 1)),
    ],
)
def test_paddings(nodes, expected):
    pads = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    if expected == (2, 2, 1, 1):  # one pixel more than half
        nodes = nodes.replace("stem_w, stem_b", "five_w, stem_b")
    data = graph(f"{nodes} output = {RESIZE.format('c')}", pads=pads, five_w=draw(8, 2, 5, 5), **SCALES, **STEM_WEIGHTS)
    program = assert_same(data, model_info(SHAPE, 8))
    assert program.ops[1].pads == expected


def test_convolution_without_padding():
    data = graph(
        'c = Conv <auto_pad = "VALID"> (x, stem_w, stem_b) output = Conv <pads = [2, 2, 2, 2]> (c, w)',
        w=draw(8, 8, 3, 3),
        **STEM_WEIGHTS,
    )
    assert assert_same(data, model_info((2, 7, 5), 8)).ops[1].pads == (0, 0, 0, 0)


@pytest.mark.parametrize(
    "resize",
    [
        RESIZE.format("h"),
        'Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (h, , , sizes)',
    ],
)
def test_upsampling_becomes_part_of_the_convolution(resize):
    data = graph(
        f"{STEM} s = Shape <start = 0, end = 2> (h) sizes = Concat <axis = 0> (s, twice) u = {resize} "
        "v = Conv <pads = [1, 1, 1, 1]> (u, w) output = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (v, w2)",
        twice=np.array([12, 8]),
        w=draw(8, 8, 3, 3),
        w2=draw(2, 8, 3, 3),
        **SCALES,
        **STEM_WEIGHTS,
    )
    assert kinds(assert_same(data, model_info(SHAPE, 2))) == ["conv", "conv", "conv"]


def test_upsampling_that_something_else_reads_stays():
    data = graph(
        f"{STEM} u = {RESIZE.format('h')} a = Conv <pads = [1, 1, 1, 1]> (u, w) s = Add (a, u) "
        "output = Conv <strides = [2, 2]> (s, v)",
        w=draw(8, 8, 3, 3),
        v=draw(2, 8, 1, 1),
        **SCALES,
        **STEM_WEIGHTS,
    )
    assert sorted(kinds(assert_same(data, model_info(SHAPE, 2)))) == ["conv", "conv", "conv", "upsample"]


def test_pooling_of_a_channels_last_map():
    data = graph(
        "a = Transpose <perm = [0, 2, 3, 1]> (x) b = Transpose <perm = [0, 3, 1, 2]> (a) "
        "p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (b) c = Conv (p, w, stem_b) "
        f"output = {RESIZE.format('c')}",
        w=draw(8, 2, 1, 1),
        **SCALES,
        **STEM_WEIGHTS,
    )
    assert kinds(assert_same(data, model_info(SHAPE, 8))) == ["pool", "conv", "upsample"]


def test_constants_are_taken_up_by_what_has_a_bias():
    data = graph(
        "c = Conv <pads = [1, 1, 1, 1]> (x, stem_w) a = Add (c, by_channel) b = Sub (a, one) d = Conv (b, v) "
        "output = Add (one, d)",
        by_channel=draw(1, 8, 1, 1),
        one=np.float32(1),
        v=draw(8, 8, 1, 1),
        **STEM_WEIGHTS,
    )
    assert kinds(assert_same(data, model_info(SHAPE, 8))) == ["conv", "conv"]


def test_constants_elsewhere_are_a_vector_that_is_added():
    """diffusers' center_input_sample: 2 x - 1 is not 0 where the convolution pads with zeros."""
    data = graph(
        "a = Mul (x, two) b = Sub (a, one) c = Conv <pads = [1, 1, 1, 1]> (b, stem_w) d = Neg (c) "
        "output = Div (d, two)",
        one=np.float32(1),
        two=np.array([2.0]),
        **STEM_WEIGHTS,
    )
    found = kinds(assert_same(data, model_info(SHAPE, 8)))
    assert sorted(found) == ["add", "conv", "linear", "scale", "scale", "timestep"]


# Group norm and SiLU.


@pytest.mark.parametrize(
    ("norm", "opset"),
    [
        (NORM, 18),
        (NORM.replace("Mul (n, gain)", "Mul (gain, n)").replace("Add (m, offset)", "Add (offset, m)"), 11),
        ("g = GroupNormalization <num_groups = 4, epsilon = 0.001> (h, ones, zeros)", 18),
        ("g = GroupNormalization <num_groups = 4, epsilon = 0.001> (h, flat_gain, flat_offset)", 21),
    ],
)
@pytest.mark.parametrize(
    "silu", ["e = Sigmoid (g) y = Mul (g, e)", "e = Sigmoid (g) y = Mul (e, g)", "y = Identity (g)"]
)
def test_group_norm(norm, opset, silu):
    data = graph(
        f"{STEM} {norm} {silu} output = Conv (y, w)",
        opset=opset,
        flat_gain=draw(8),
        flat_offset=draw(8),
        w=draw(2, 8, 1, 1),
        **NORM_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert kinds(program) == ["conv", "group_norm", "conv"]
    norm_op = program.ops[2]
    assert isinstance(norm_op, GroupNorm)
    assert (norm_op.groups, norm_op.silu) == (4, "Sigmoid" in silu)


def test_silu_of_a_convolution():
    data = graph(f"{STEM} e = Sigmoid (h) y = Mul (h, e) output = Conv (y, w)", w=draw(2, 8, 1, 1), **STEM_WEIGHTS)
    assert kinds(assert_same(data, model_info(SHAPE, 2))) == ["conv", "silu", "conv"]


# Concatenations.


def test_concatenation_that_norm_and_shortcut_read_disappears():
    data = graph(
        f"{STEM} o = Conv (x, other_w) h2 = Concat <axis = 1> (h, o) "
        f"{NORM.replace('(h,', '(h2,').replace('Shape (h)', 'Shape (h2)')} "
        "c = Conv <pads = [1, 1, 1, 1]> (g, w) d = Conv (h2, v) output = Add (c, d)",
        other_w=draw(4, 2, 1, 1),
        w=draw(5, 12, 3, 3),
        v=draw(5, 12, 1, 1),
        **{**NORM_WEIGHTS, "gain": draw(12, 1, 1), "offset": draw(12, 1, 1)},
    )
    program = assert_same(data, model_info(SHAPE, 5))
    assert sorted(kinds(program)) == ["conv", "conv", "conv", "conv", "group_norm"]
    assert program.ops[-2].residual is not None


def test_concatenation_that_a_3x3_convolution_reads_stays():
    data = graph(
        f"{STEM} h2 = Concat <axis = 1> (h, x) output = Conv <pads = [1, 1, 1, 1]> (h2, w)",
        w=draw(5, 10, 3, 3),
        **STEM_WEIGHTS,
    )
    assert kinds(assert_same(data, model_info(SHAPE, 5))) == ["conv", "concat", "conv"]
