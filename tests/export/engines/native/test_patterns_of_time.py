"""Timesteps, labels and embeddings as exporters write them are recognised, and computed once where they can be."""

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

from pysdk.export.engines.native.program import Conv, GroupNorm, Timestep

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
