"""How convolutions are computed: guessed by size, chosen by time, taken back for accuracy."""

import numpy as np
import pytest
from kit.compiler.graphs import graph, model_info

from pysdk.export.engines.native import builder, float64, tactics
from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.fusion import fuse
from pysdk.export.engines.native.program import Conv, NotCovered, Tensor
from pysdk.export.lowering.onnx_files import OnnxFiles

RNG = np.random.default_rng(0)
MODEL = model_info((16, 16, 16), 16)
DATA = graph(
    "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) c = Conv <pads = [1, 1, 1, 1]> (a, w2) d = Conv (c, one) "
    "e = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (d, w) f = Conv <pads = [1, 1, 1, 1]> (e, w2) "
    'u = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (f, , scales) '
    "output = Conv <pads = [1, 1, 1, 1]> (u, w)",
    w=RNG.standard_normal((16, 16, 3, 3)) / 12,
    w2=RNG.standard_normal((16, 16, 3, 3)) / 12,
    b=RNG.standard_normal(16),
    one=RNG.standard_normal((16, 16, 1, 1)) / 4,
    scales=np.array([1, 1, 2, 2], np.float32),
)


@pytest.fixture
def program():
    return fuse(lower(DATA, MODEL))


def chosen(program):
    return [op.tactic for op in program.ops if isinstance(op, Conv)]


@pytest.mark.parametrize(("batch", "small_map"), [(1, "winograd2"), (16, "winograd4")])
def test_guesses(program, batch, small_map):
    """The fifth has a map of 8x8: one image does not pay for the larger weights of winograd4, 16 do."""
    expected = ["winograd4", "winograd4", "direct", "direct", small_map, "winograd4"]
    assert chosen(tactics.guessed(program, batch)) == expected


@pytest.mark.parametrize(("size", "batch", "tactic"), [(4, 1, "direct"), (4, 4, "winograd2"), (4, 16, "winograd4")])
def test_weights_cost_more_than_a_small_map_saves(size, batch, tactic):
    out = Tensor(256, size, size)
    assert min(tactics.TACTICS, key=lambda tried: tactics.cost(out, tried, batch)) == tactic


def test_the_fastest_tactic_of_each_shape_is_taken(program):
    """Times are made up: winograd2 wins at full size, winograd4 at half; layers of one shape are taken together."""
    seconds = {"direct": [5, 5, 9, 9, 5, 1], "winograd2": [4, 2, 0, 0, 4, 2], "winograd4": [2, 9, 0, 0, 3, 3]}

    def profile(tried):
        (tactic,) = {op.tactic for op in tried.ops if isinstance(op, Conv) and len(tactics.choices(tried, op)) > 1}
        times = iter(seconds[tactic])
        return [next(times) if isinstance(op, Conv) else 0.0 for op in tried.ops]

    best = tactics.measured(program, profile)
    # the first has a bias, which costs nothing: its shape is that of the second
    assert chosen(best) == ["winograd2", "winograd2", "direct", "direct", "winograd4", "direct"]


def test_the_worse_half_becomes_more_accurate(program):
    fast = tactics.guessed(program, 1)
    outs = [op.out for op in fast.ops if isinstance(op, Conv)]
    errors = dict(zip(outs, [1e-6, 5e-6, 0, 0, 3e-6, 2e-6], strict=True))
    once = tactics.more_accurate(fast, errors)
    assert chosen(once) == ["winograd4", "winograd2", "direct", "direct", "direct", "winograd4"]
    rest = once
    for _ in range(5):
        rest = tactics.more_accurate(rest, errors) or rest
    assert set(chosen(rest)) == {"direct"}
    assert tactics.more_accurate(rest, errors) is None


def test_a_layer_alone_is_the_layer(program):
    op = program.ops[2]
    values = {}
    x = RNG.standard_normal((1, 16, 16, 16))
    float64.run(program, x, 0.0, see=lambda op, value: values.setdefault(op.out, value))
    alone = float64.run(tactics.layer(program, op), values[op.x[0]], 0.0)
    np.testing.assert_array_equal(alone, values[op.out])


@pytest.mark.parametrize(("limit", "allowed"), [(1e-5, {"winograd4"}), (9e-7, {"winograd2", "direct"})])
def test_accuracy_decides(monkeypatch, program, limit, allowed):
    monkeypatch.setattr(builder, "MAX_RELATIVE_ERROR", limit)
    fast = tactics.guessed(program, 1)
    checked = builder.Checked(fast, MODEL, 10, 0.0, list)
    found, comparison = builder.accurate(fast, checked, OnnxFiles(DATA))
    assert comparison.relative <= limit
    assert allowed & set(chosen(found))


def test_what_cannot_be_accurate_enough_is_not_covered(monkeypatch, program):
    monkeypatch.setattr(builder, "MAX_RELATIVE_ERROR", 1e-12)
    checked = builder.Checked(program, MODEL, 10, 0.0, list)
    with pytest.raises(NotCovered, match=r"it is .* of the largest output away from float64; the limit is 1e-12"):
        builder.accurate(tactics.guessed(program, 1), checked, OnnxFiles(DATA))
