"""Each form that exporters give a layer is recognised, and computes what ONNX Runtime computes.

`assert_same` compares; the expected list of operations shows that nothing was left over.
"""

import numpy as np
import pytest
from kit.compiler.graphs import assert_same, graph, kinds, model_info

from pysdk.export.engines.native.program import Attention, Conv, GroupNorm, Timestep

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


STEM = "h = Conv <pads = [1, 1, 1, 1]> (x, stem_w, stem_b)"
STEM_WEIGHTS = {"stem_w": draw(8, 2, 3, 3) / 3, "stem_b": draw(8)}
SHAPE = (2, 6, 4)


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


# Timesteps, labels, embeddings.

TIME = (
    "tu = Unsqueeze (t, one_i) ta = Mul (tu, frequencies) ts = Sin (ta) tc = Cos (ta) tv = Concat <axis = 1> ({order}) "
    "e1 = Gemm <transB = 1> (tv, time_w, time_b) es = Sigmoid (e1) e = Mul (e1, es)"
)
TIME_WEIGHTS = {
    "one_i": np.array([1]),
    "frequencies": np.exp(-np.arange(4.0))[None],
    "time_w": draw(6, 8) / 3,
    "time_b": draw(6),
}
TAIL = "f = Unsqueeze (e, axes) k = Gemm <transB = 1> (e, proj_w, proj_b) q = Unsqueeze (k, axes)"
TAIL_WEIGHTS = {"axes": np.array([2, 3]), "proj_w": draw(8, 6), "proj_b": draw(8), "out_w": draw(2, 8, 1, 1)}


@pytest.mark.parametrize("order", ["ts, tc", "tc, ts"])
@pytest.mark.parametrize("scaled", [False, True])
def test_timestep_is_embedded_once_and_added_inside_the_convolution(order, scaled):
    time = TIME.format(order=order).replace("(t, one_i)", "(tz, one_i)")
    data = graph(
        f"{STEM} tz = Mul ({'factor, t' if scaled else 't, unit'}) {time} {TAIL} a = Add (h, q) "
        "output = Conv (a, out_w)",
        factor=np.float32(0.25),
        unit=np.float32(1),
        **STEM_WEIGHTS,
        **TIME_WEIGHTS,
        **TAIL_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert sorted(kinds(program)) == ["conv", "conv", "linear", "linear", "silu", "timestep"]
    (sines,) = (op for op in program.ops if isinstance(op, Timestep))
    assert sines.scale == (0.25 if scaled else 1.0)
    assert program.tensors[sines.out].shared
    np.testing.assert_array_equal(program.weight(sines.frequencies)[:4], TIME_WEIGHTS["frequencies"][0].astype("f4"))
    assert program.weight(sines.quarter_turns).tolist() == (
        [0] * 4 + [1] * 4 if order == "ts, tc" else [1] * 4 + [0] * 4
    )


def test_timestep_repeated_for_each_image_is_computed_once():
    """diffusers multiplies t by ones for each image, and flips sine and cosine by slices; a constant 0 pads."""
    data = graph(
        f"{STEM} b = Shape <start = 0, end = 1> (x) tb = Expand (t, b) tu = Unsqueeze (tb, one_i) "
        "ta = Mul (tu, frequencies) ts = Sin (ta) tc = Cos (ta) tv = Concat <axis = -1> (ts, tc) "
        "f1 = Slice (tv, four, eight, one_i) f2 = Slice (tv, zero, four, one_i) fl = Concat <axis = -1> (f1, f2) "
        "tp = Pad (fl, pad) e = Gemm <transB = 1> (tp, time_w9, time_b) "
        f"{TAIL} a = Add (q, h) output = Conv (a, out_w)",
        four=np.array([4]),
        eight=np.array([8]),
        zero=np.array([0]),
        pad=np.array([0, 0, 0, 1]),
        time_w9=draw(6, 9),
        **STEM_WEIGHTS,
        **TIME_WEIGHTS,
        **TAIL_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert sorted(kinds(program)) == ["conv", "conv", "linear", "linear", "timestep"]
    assert [tensor.shared for tensor in program.tensors].count(True) == 3


def test_label_makes_the_embedding_one_for_each_image():
    data = graph(
        f"{STEM} {TIME.format(order='ts, tc')} l = Gather (table, label) ee = Add (e, l) "
        f"{TAIL.replace('(e, proj', '(ee, proj')} a = Add (h, q) output = Conv (a, out_w)",
        label=True,
        table=draw(5, 6),
        **STEM_WEIGHTS,
        **TIME_WEIGHTS,
        **TAIL_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2, classes=5))
    assert sorted(kinds(program)) == ["add", "conv", "conv", "embedding", "linear", "linear", "silu", "timestep"]


@pytest.mark.parametrize("plus", ["Add (one_f, c1)", "Add (c1, one_f)"])
@pytest.mark.parametrize("chunks", ["c1, c2 = Split <axis = 1> (q, halves)", "c2, c1 = Split <axis = 1> (q, halves)"])
def test_scale_and_shift_go_into_the_norm(plus, chunks):
    data = graph(
        f"{STEM} {NORM} {TIME.format(order='ts, tc')} k = Gemm (e, proj2) q = Unsqueeze (k, axes) {chunks} p = {plus} "
        "y = Mul (g, p) z = Add (y, c2) s1 = Sigmoid (z) s2 = Mul (z, s1) output = Conv (s2, out_w)",
        one_f=np.float32(1),
        halves=np.array([8, 8]),
        proj2=draw(6, 16) / 3,
        **NORM_WEIGHTS,
        **TIME_WEIGHTS,
        **TAIL_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    (norm,) = (op for op in program.ops if isinstance(op, GroupNorm))
    assert norm.silu
    assert (norm.scale[1], norm.shift[1]) == ((0, 8) if chunks.startswith("c1") else (8, 0))
    assert "add" not in kinds(program)


def test_projections_of_one_embedding_are_stacked():
    data = graph(
        f"{STEM} {TIME.format(order='ts, tc')} {TAIL} a = Add (h, q) c = Conv <pads = [1, 1, 1, 1]> (a, mid_w) "
        "k2 = Gemm <transB = 1> (e, other_w, proj_b) q2 = Unsqueeze (k2, axes) b = Add (c, q2) r = Add (b, a) "
        "output = Conv (r, out_w)",
        mid_w=draw(8, 8, 3, 3) / 8,
        other_w=draw(8, 6),
        **STEM_WEIGHTS,
        **TIME_WEIGHTS,
        **TAIL_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert sorted(kinds(program)) == ["conv", "conv", "conv", "linear", "linear", "silu", "timestep"]
    first, second = (op for op in program.ops if isinstance(op, Conv) and op.embedding)
    assert (first.embedding[0], first.embedding[1], second.embedding[1]) == (second.embedding[0], 0, 8)
    assert second.residual == first.out


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


# Attention.

QKV = {"qkv_w": draw(24, 8, 1, 1) / 3, "qkv_b": draw(24), "out_w": draw(2, 8, 1, 1), "scale": np.float32(0.7)}
FORMS = {
    "openai, legacy order": (
        "a = Reshape (c, [[0, 2, 12, -1]]) aa = Reshape (a, [[-1, 12, 24]]) "
        "q, k, v = Split <axis = 1> (aa, [[4, 4, 4]]) "
        'qs = Mul (q, scale) ks = Mul (k, scale) w = Einsum <equation = "bct,bcs->bts"> (qs, ks) '
        'p = Softmax <axis = -1> (w) o = Einsum <equation = "bts,bcs->bct"> (p, v) y = Reshape (o, [[-1, 8, 6, 4]])'
    ),
    "openai, new order": (
        "a = Reshape (c, [[0, 24, -1]]) q0, k0, v0 = Split <axis = 1> (a, [[8, 8, 8]]) q = Reshape (q0, [[-1, 4, 24]]) "
        "k = Reshape (k0, [[-1, 4, 24]]) v = Reshape (v0, [[-1, 4, 24]]) qt = Transpose <perm = [0, 2, 1]> (q) "
        "w = MatMul (qt, k) ws = Mul (w, scale) p = Softmax (ws) vt = Transpose <perm = [0, 2, 1]> (v) "
        "o = MatMul (p, vt) "
        "ot = Transpose <perm = [0, 2, 1]> (o) y = Reshape (ot, [[-1, 8, 6, 4]])"
    ),
    "one head, scores transposed": (
        "a = Reshape (c, [[0, 24, -1]]) q, k, v = Split <axis = 1> (a, [[8, 8, 8]]) "
        "qt = Transpose <perm = [0, 2, 1]> (q) "
        "w = MatMul (qt, k) ws = Mul (w, scale) p = Softmax <axis = 2> (ws) pt = Transpose <perm = [0, 2, 1]> (p) "
        "o = MatMul (v, pt) y = Reshape (o, [[-1, 8, 6, 4]])"
    ),
    "tokens of three layers": (
        "n = Reshape (h, [[0, 8, 24]]) tk = Transpose <perm = [0, 2, 1]> (n) q0 = MatMul (tk, wq) q1 = Add (q0, bq) "
        "k0 = MatMul (tk, wk) k1 = Add (bq, k0) v0 = MatMul (tk, wv) v1 = Add (v0, bq) "
        "q2 = Reshape (q1, [[0, -1, 4, 2]]) q = Transpose <perm = [0, 2, 1, 3]> (q2) "
        "k2 = Reshape (k1, [[0, -1, 4, 2]]) k = Transpose <perm = [0, 2, 3, 1]> (k2) "
        "v2 = Reshape (v1, [[0, -1, 4, 2]]) v = Transpose <perm = [0, 2, 1, 3]> (v2) qs = Mul (q, scale) "
        "w = MatMul (qs, k) p = Softmax (w) o = MatMul (p, v) ot = Transpose <perm = [0, 2, 1, 3]> (o) "
        "of = Reshape (ot, [[0, -1, 8]]) ol = MatMul (of, wo) ob = Add (ol, bq) oc = Transpose <perm = [0, 2, 1]> (ob) "
        "y = Reshape (oc, [[0, 8, 6, 4]])"
    ),
    "channels-last": (
        "ct = Transpose <perm = [0, 2, 3, 1]> (c) a = Reshape (ct, [[0, 24, 3, 2, 4]]) "
        "at = Transpose <perm = [2, 0, 3, 1, 4]> (a) q = Gather <axis = 0> (at, i0) k = Gather <axis = 0> (at, i1) "
        "v = Gather <axis = 0> (at, i2) kt = Transpose <perm = [0, 1, 3, 2]> (k) w = MatMul (q, kt) "
        "ws = Mul (w, scale) "
        "p = Softmax (ws) o = MatMul (p, v) ot = Transpose <perm = [0, 2, 1, 3]> (o) of = Reshape (ot, [[0, 6, 4, 8]]) "
        "y = Transpose <perm = [0, 3, 1, 2]> (of)"
    ),
    "one node": (
        "a = Reshape (c, [[0, 3, 2, 4, 24]]) at = Transpose <perm = [1, 0, 2, 4, 3]> (a) "
        "q = Gather <axis = 0> (at, i0) k = Gather <axis = 0> (at, i1) v = Gather <axis = 0> (at, i2) "
        "o = Attention (q, k, v) ot = Transpose <perm = [0, 1, 3, 2]> (o) y = Reshape (ot, [[0, 8, 6, 4]])"
    ),
}
FORM_WEIGHTS = {name: draw(8, 8) / 3 for name in ("wq", "wk", "wv", "wo")} | {"bq": draw(8)}


@pytest.mark.parametrize("form", FORMS)
def test_attention(form):
    nodes, shapes = FORMS[form], {}
    while "[[" in nodes:
        first, last = nodes.index("[["), nodes.index("]]")
        name = f"shape{len(shapes)}"
        shapes[name] = np.array([int(size) for size in nodes[first + 2 : last].split(",")])
        nodes = nodes[:first] + name + nodes[last + 2 :]
    data = graph(
        f"{STEM} c = Conv (h, qkv_w, qkv_b) {nodes} r = Add (y, h) output = Conv (r, out_w)",
        opset=23 if "Attention" in nodes else 18,
        **{f"i{index}": np.int64(index) for index in range(3)},
        **shapes,
        **QKV,
        **FORM_WEIGHTS,
        **STEM_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    (op,) = (op for op in program.ops if isinstance(op, Attention))
    expected = {
        "openai, legacy order": (2, 4, (0, 12), (4, 12), (8, 12)),
        "openai, new order": (2, 4, (0, 4), (8, 4), (16, 4)),
        "one head, scores transposed": (1, 8, (0, 8), (8, 8), (16, 8)),
        "tokens of three layers": (4, 2, (0, 2), (8, 2), (16, 2)),
        "channels-last": (2, 4, (0, 4), (8, 4), (16, 4)),
        "one node": (2, 4, (0, 4), (8, 4), (16, 4)),
    }[form]
    assert (op.heads, op.head_channels, op.q[1:], op.k[1:], op.v[1:]) == expected
    tokens = form == "tokens of three layers"  # q, k and v stacked; the sum inside the projection behind
    assert kinds(program) == (
        ["conv", "conv", "attention", "conv", "conv"] if tokens else ["conv", "conv", "attention", "add", "conv"]
    )
    assert op.scale == pytest.approx({"openai, legacy order": 0.49, "one node": 0.5}.get(form, 0.7))


@pytest.mark.parametrize("residual", [True, False])
def test_projections_of_a_single_head_are_folded(residual):
    data = graph(
        f"{STEM} c = Conv (h, qkv_w, qkv_b) a = Reshape (c, flat) q, k, v = Split <axis = 1> (a, eights) "
        "qt = Transpose <perm = [0, 2, 1]> (q) w = MatMul (qt, k) ws = Mul (w, scale) p = Softmax (ws) "
        "vt = Transpose <perm = [0, 2, 1]> (v) o = MatMul (p, vt) ot = Transpose <perm = [0, 2, 1]> (o) "
        "y = Reshape (ot, image) z = Conv (y, proj, stem_b) "
        f"r = {'Add (h, z)' if residual else 'Identity (z)'} output = Conv (r, out_w)",
        flat=np.array([0, 24, -1]),
        eights=np.array([8, 8, 8]),
        image=np.array([-1, 8, 6, 4]),
        proj=draw(8, 8, 1, 1) / 3,
        **QKV,
        **STEM_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert kinds(program) == ["conv", "conv", "attention", "conv"]
    (op,) = (op for op in program.ops if isinstance(op, Attention))
    assert (op.k[0], op.residual) == (program.ops[1].out, program.ops[1].out if residual else None)


def test_attention_of_a_sequence_convolution():
    """OpenAI's: group norm, 1x1 convolutions of sequences, the residual as a sequence."""
    data = graph(
        f"{STEM} s = Reshape (h, sequence) r = Reshape (s, by_group) i = InstanceNormalization (r, ones, zeros) "
        "ss = Shape (s) n = Reshape (i, ss) m = Mul (n, gain1) g = Add (m, offset1) c = Conv (g, qkv1, qkv_b) "
        "aa = Reshape (c, heads) q, k, v = Split <axis = 1> (aa, fours) "
        'w = Einsum <equation = "bct,bcs->bts"> (q, k) p = Softmax <axis = -1> (w) '
        'o = Einsum <equation = "bts,bcs->bct"> (p, v) y = Reshape (o, sequence) f = Conv (y, proj1, stem_b) '
        "z = Add (s, f) sh = Shape (h) b = Reshape (z, sh) output = Conv (b, out_w)",
        sequence=np.array([-1, 8, 24]),
        heads=np.array([-1, 12, 24]),
        fours=np.array([4, 4, 4]),
        gain1=draw(8, 1),
        offset1=draw(8, 1),
        qkv1=draw(24, 8, 1) / 3,
        proj1=draw(8, 8, 1) / 3,
        **QKV,
        **NORM_WEIGHTS,
    )
    program = assert_same(data, model_info(SHAPE, 2))
    assert kinds(program) == ["conv", "group_norm", "conv", "attention", "conv", "conv"]


def test_the_branch_of_a_known_condition_is_taken():
    data = graph(
        f"{STEM} s = Size (t) one = Constant <value_int = 1> () k = Equal (s, one) y = If <"
        "then_branch = yes () => (float[batch,a,b,c] u) { u = Sigmoid (h) }, "
        "else_branch = no () => (float[batch,a,b,c] u) { u = Erf (h) }> (k) z = Mul (h, y) output = Conv (z, w)",
        w=draw(2, 8, 1, 1),
        **STEM_WEIGHTS,
    )
    assert kinds(assert_same(data, model_info(SHAPE, 2))) == ["conv", "silu", "conv"]
