"""NaN, infinity and overflow: they stay in their image, and do not vanish."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.engine.corpus import CORPUS
from kit.engine.programs import Program
from torch.nn import functional


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_image_reaches_only_itself(name: str, value: float):
    program = CORPUS[name]()
    clean = program.run()
    program.x[2, 0, 0, 0] = value
    dirty = program.run(threads=3)
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(dirty[others], clean[others])
    assert not np.isfinite(dirty[2]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("tactic", ["direct", "winograd2", "winograd4"])
def test_what_is_not_finite_in_a_convolution_is_not_in_ours(tactic: str, value: float):
    """Winograd's tiles may hold more of it: all their pixels see all of their input."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 18, 9, 8), np.float32)
    x[0, 17, 4, 4] = value
    weight = rng.standard_normal((5, 18, 3, 3), np.float32)
    program = Program(x)
    y = program.output(program.conv([program.image()], weight, [1] * 4, tactic=tactic)).run()
    exact = functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding=1).numpy()
    assert not np.isfinite(y[~np.isfinite(exact)]).any()
    near = np.s_[:, :, 2:7, 2:7] if tactic == "winograd2" else np.s_[:, :, :8, :8]
    bad = ~np.isfinite(y)
    bad[near] = False
    if tactic != "direct":
        assert not bad.any(), "beyond the tiles that the pixel is in"
    else:
        np.testing.assert_array_equal(np.isfinite(y), np.isfinite(exact))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_silu_as_torch_has_it(value: float):
    program = Program(np.full((1, 1, 1, 1), value))
    image = program.image()
    y = program.output(program.op("silu", x=image, out=program.like(image))).run()
    np.testing.assert_array_equal(y, functional.silu(torch.tensor(program.x)).numpy())


@pytest.mark.parametrize(("channel", "bad"), [(0, "q"), (4, "k"), (8, "v")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_attention(channel: int, bad: str, value: float):
    """One bad token: a bad query spoils its own result, a bad key or value that of all tokens of its head."""
    x = np.random.default_rng(0).standard_normal((1, 24, 1, 21), np.float32)
    x[0, channel, 0, 5] = value
    program = Program(x)
    image = program.image()
    places = {name: [image, 4 * i, 12] for i, name in enumerate("qkv")}
    out = program.op("attention", heads=2, head_channels=4, scale=0.5, out=program.tensor(8, 1, 21), **places)
    y = program.output(out).run()[0, :, 0]
    assert np.isfinite(y[4:]).all(), "the other head"
    if bad == "q":
        assert np.isnan(y[:4, 5]).all()
        assert np.isfinite(np.delete(y[:4], 5, axis=1)).all()
    elif bad == "v":
        assert not np.isfinite(y[0]).any()
        assert np.isfinite(y[1:4]).all()
    elif np.isnan(value):
        assert np.isnan(y[:4]).all()


def test_group_norm_spoils_the_group_of_the_image():
    x = np.random.default_rng(0).standard_normal((2, 6, 20, 20), np.float32)
    x[0, 2, 19, 19] = np.inf
    program = Program(x)
    y = program.output(program.norm([program.image()], 3, np.ones(6), np.zeros(6))).run()
    assert np.isnan(y[0, 2:4]).all()
    assert np.isfinite(y[1]).all()
    assert np.isfinite(y[0, [0, 1, 4, 5]]).all()


def test_denormals_are_kept():
    x = np.full((1, 3, 3, 3), 1e-42, np.float32)
    program = Program(x)
    image = program.image()
    y = program.output(program.conv([image], np.full((3, 3, 1, 1), 0.5, np.float32), residual=image)).run()
    np.testing.assert_array_equal(y, x + np.float32(1.5) * x)
