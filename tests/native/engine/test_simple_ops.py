"""add, scale, pool, upsample, concat, timestep, embedding: exact, or to the last bit of one rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.programs import Array, Program, agree, fit_output, side_by_side

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 9), st.integers(1, 9))


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@settings(deadline=None, max_examples=30)
@given(SHAPES, st.sampled_from(["map", "vector", "shared vector"]), st.integers(1, 4), st.integers(0, 2**32))
def test_add(shape: tuple[int, ...], other: str, threads: int, seed: int):
    a = normal(seed, *shape)
    if other == "map":
        b = normal(seed + 1, *shape)
        program = Program(side_by_side(a, b))
        x, y = program.maps(a, b)
    else:
        b = normal(seed + 1, *shape[:2], 1, 1)
        if other == "shared vector":
            b[:] = b[0]
        program = Program(a)
        x = program.image()
        y = program.vectors(b[:, :, 0, 0]) if other == "vector" else program.shared_vector(b[0, :, 0, 0])
    out = program.op("add", a=x, b=y, out=program.like(x))
    np.testing.assert_array_equal(program.output(out).run(threads), a + b)


def test_add_of_shared_and_per_image_vectors():
    for shared_first in (True, False):
        shared, own = normal(0, 5), normal(1, 3, 5)
        program = Program(np.zeros((3, 5, 1, 1)))
        a, b = program.shared_vector(shared), program.vectors(own)
        pair = {"a": a, "b": b} if shared_first else {"a": b, "b": a}
        out = program.op("add", **pair, out=program.tensor(5))
        np.testing.assert_array_equal(program.output(out).run()[:, :, 0, 0], shared + own)


@settings(deadline=None, max_examples=15)
@given(SHAPES, st.sampled_from([0.0, -1.0, 0.1, 1e30, -1e30, 1e-42]), st.integers(1, 4))
def test_scale(shape: tuple[int, ...], factor: float, threads: int):
    program = Program(normal(0, *shape))
    x = program.image()
    y = program.output(program.op("scale", x=x, out=program.like(x), factor=factor)).run(threads)
    np.testing.assert_array_equal(y, program.x * np.float32(factor))


@settings(deadline=None, max_examples=20)
@given(SHAPES, st.integers(1, 4))
def test_pool(shape: tuple[int, ...], threads: int):
    """Of odd sizes the last row or column is left out, as in torch."""
    x = normal(0, *shape[:2], shape[2] + 1, shape[3] + 1)
    program = Program(x)
    image = program.image()
    channels, height, width, _ = program.tensors[image]
    pooled = program.op("pool", x=image, out=program.tensor(channels, height // 2, width // 2))
    y = fit_output(program, pooled).run(threads)[:, :, : height // 2, : width // 2]
    parts = [x[:, :, i : height // 2 * 2 : 2, j : width // 2 * 2 : 2] for i in (0, 1) for j in (0, 1)]
    np.testing.assert_array_equal(y, ((parts[0] + parts[1]) + (parts[2] + parts[3])) * np.float32(0.25))


@settings(deadline=None, max_examples=20)
@given(SHAPES, st.integers(1, 4))
def test_upsample(shape: tuple[int, ...], threads: int):
    x = normal(0, *shape)
    program = Program(np.pad(x, ((0, 0), (0, 0), (0, shape[2]), (0, shape[3]))))
    (small,) = program.maps(x)
    out = program.op("upsample", x=small, out=program.tensor(shape[1], 2 * shape[2], 2 * shape[3]))
    np.testing.assert_array_equal(program.output(out).run(threads), x.repeat(2, 2).repeat(2, 3))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 3), st.integers(1, 4))
def test_concat(channels: list[int], batch: int, threads: int):
    arrays = [normal(i, batch, c, 3, 4) for i, c in enumerate(channels)]
    program = Program(side_by_side(*arrays))
    out = program.op("concat", x=program.maps(*arrays), out=program.tensor(sum(channels), 3, 4))
    np.testing.assert_array_equal(program.output(out).run(threads), program.x)


def test_concat_of_shared_vectors():
    program = Program(np.zeros((2, 7, 1, 1)))
    a, b = (program.shared_vector(normal(i, 3 + i)) for i in (0, 1))
    joined = program.op("concat", x=[a, b], out=program.tensor(7, shared=True))
    y = program.output(program.op("add", a=program.image(), b=joined, out=program.tensor(7))).run()
    np.testing.assert_array_equal(y[:, :, 0, 0], np.tile(np.concatenate([normal(0, 3), normal(1, 4)]), (2, 1)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.one_of(st.floats(-9e5, 9e5, width=32), st.integers(0, 1000).map(float)),  # angles below 1e9: NaN from there
    st.sampled_from([1.0, 1000.0, 0.25]),
)
def test_timestep(channels: int, t: float, scale: float):
    frequencies = np.exp(-np.log(1e4) * np.arange(channels) / channels).astype(np.float32)
    turns = np.arange(channels) % 2
    program = Program(np.zeros((2, channels, 1, 1)), t=t)
    out = program.tensor(channels, shared=True)
    weights = {"frequencies": program.weight(frequencies), "quarter_turns": program.weight(turns)}
    vector = program.op("timestep", out=out, scale=scale, **weights)
    y = program.output(program.op("add", a=program.image(), b=vector, out=program.tensor(channels))).run()
    angle = np.float64(np.float32(t)) * scale * frequencies.astype(float)
    exact = np.where(turns == 1, np.cos(angle), np.sin(angle))
    for image in y[:, :, 0, 0]:
        agree("timestep", image, exact, 1.0, 6e-8 + (1e-4 if abs(angle).max() > 1e6 else 0))


@pytest.mark.parametrize("t", [1e10, np.inf, np.nan])
def test_timesteps_without_digits_are_nan(t: float):
    program = Program(np.zeros((1, 4, 1, 1)), t=t)
    vector = program.timestep(4)
    y = program.output(program.op("add", a=program.image(), b=vector, out=program.tensor(4))).run()
    assert np.isnan(y[0, 0, 0, 0])


def test_embedding():
    table = normal(0, 6, 21)
    program = Program(np.zeros((4, 21, 1, 1)), labels=np.array([5, 0, 3, 3]))
    np.testing.assert_array_equal(program.output(program.vectors(table)).run()[:, :, 0, 0], table[[5, 0, 3, 3]])


@pytest.mark.parametrize("label", [-1, 6, 2**62, -(2**63)])
def test_a_label_beyond_the_table(label: int):
    program = Program(np.zeros((2, 3, 1, 1)), labels=np.array([0, label]))
    network, output = program.output(program.vectors(normal(0, 6, 3))).bind()
    with pytest.raises(IndexError, match=rf"label {label} of image 1 is not between 0 and 5"):
        network()
    assert (output == 7e7).all(), "nothing was written"
    with pytest.raises(IndexError):  # and the network is free again
        network()


def test_profile_has_a_time_for_every_op():
    program = Program(np.zeros((1, 3, 4, 4)))
    network, _ = program.output(program.image()).bind()
    seconds = network.profile()
    assert len(seconds) == 2
    assert min(seconds) >= 0
    assert network.bytes >= 16 * 16 * 4
