"""Each form that exporters give attention is recognised, and computes what ONNX Runtime computes."""

import numpy as np
import pytest
from kit.compiler.graphs import (
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

from pysdk.export.engines.native.program import Attention

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
