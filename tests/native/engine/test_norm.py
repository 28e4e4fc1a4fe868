"""group_norm and SiLU against float64.

The engine computes y = a x + b with one rounding, a and b being rounded before: errors are relative to max |a x|.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.programs import Array, Program, agree, side_by_side
from torch.nn import functional

TOLERANCE = 2e-6


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def normalize(x: Array, groups: int, gamma: Array, beta: Array, epsilon: float) -> tuple[Array, Array]:
    """y = a x + b in float64, and a."""
    values = x.astype(np.float64).reshape(len(x), groups, -1)
    mean, deviation = values.mean(axis=2), np.sqrt(values.var(axis=2) + epsilon)
    per_group = x.shape[1] // groups
    mean, deviation = (np.repeat(a, per_group, axis=1)[:, :, None, None] for a in (mean, deviation))
    a = gamma[:, None, None] / deviation
    return (x - mean) * a + beta[:, None, None], a


def silu(x: Array) -> Array:
    return functional.silu(torch.from_numpy(x)).numpy()


@st.composite
def norms(draw: st.DrawFn) -> dict[str, Any]:
    channels = [draw(st.integers(1, 129))]
    if draw(st.booleans()):  # the second map then begins inside a block of 16, or at one
        channels.append(draw(st.one_of(st.integers(1, 60), st.sampled_from([16, 32]))))
    return {
        "channels": channels,
        "groups": draw(st.sampled_from(divisors(sum(channels)))),
        "size": draw(st.tuples(st.integers(1, 20), st.integers(1, 20))),
        "batch": draw(st.integers(1, 4)),
        "threads": draw(st.integers(1, 5)),
        "epsilon": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "silu": draw(st.booleans()),
        "modulation": draw(st.sampled_from([None, None, "shared", "per image"])),
        "seed": draw(st.integers(0, 2**32)),
    }


def check(case: dict[str, Any]) -> None:
    rng = np.random.default_rng(case["seed"])
    batch, channels = case["batch"], sum(case["channels"])
    xs = [
        (rng.standard_normal((batch, c, *case["size"])) * 3 + rng.standard_normal((1, c, 1, 1)) * 5).astype(np.float32)
        for c in case["channels"]
    ]
    gamma, beta = rng.standard_normal((2, channels), np.float32)
    program = Program(side_by_side(*xs))
    tensors = program.maps(*xs)
    x = np.concatenate(xs, axis=1)
    exact, a = normalize(x, case["groups"], gamma, beta, case["epsilon"])
    fields: dict[str, Any] = {"epsilon": case["epsilon"], "silu": case["silu"]}
    if case["modulation"]:
        vectors = rng.standard_normal((batch, 2 * channels + 5), np.float32)
        if case["modulation"] == "shared":
            vectors[:] = vectors[0]
        tensor = program.shared_vector(vectors[0]) if case["modulation"] == "shared" else program.vectors(vectors)
        fields |= {"scale": [tensor, 2], "shift": [tensor, channels + 4]}
        parts = vectors[:, 2 : 2 + channels], vectors[:, channels + 4 : 2 * channels + 4]
        scale, shift = (part.astype(float)[:, :, None, None] for part in parts)
        exact, a = exact * (1 + scale) + shift, a * (1 + scale)
    if case["silu"]:
        exact = silu(exact)
    y = program.output(program.norm(tensors, case["groups"], gamma, beta, **fields)).run(case["threads"])
    agree("group_norm", y, exact, max(1, np.abs(a * x).max()), TOLERANCE)


@settings(deadline=None, max_examples=80)
@given(norms())
def test_group_norm(case: dict[str, Any]):
    check(case)


@pytest.mark.parametrize("channels", [[48], [129], [5, 43], [20, 109]])
def test_every_number_of_groups(channels: list[int]):
    for groups in divisors(sum(channels)):
        check(
            {
                "channels": channels, "groups": groups, "size": (3, 5), "batch": 2, "threads": 2, "epsilon": 1e-5,
                "silu": False, "modulation": None, "seed": groups,
            }
        )  # fmt: skip


@pytest.mark.parametrize("pixels", [1, 255, 256, 257, 1000])
def test_sizes_around_a_slab(pixels: int):
    """Sums are taken over 256 pixels at a time."""
    for batch, threads in ((1, 1), (1, 8), (3, 2)):
        check(
            {
                "channels": [6], "groups": 3, "size": (1, pixels), "batch": batch, "threads": threads, "epsilon": 1e-5,
                "silu": True, "modulation": None, "seed": pixels,
            }
        )  # fmt: skip


def one_norm(x: Array, groups: int = 1, epsilon: float = 1e-5) -> tuple[Array, Array]:
    """The engine's result, and the exact one."""
    ones, zeros = np.ones(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    program = Program(x)
    y = program.output(program.norm([program.image()], groups, ones, zeros, epsilon=epsilon)).run()
    return y, normalize(program.x, groups, ones, zeros, epsilon)[0]


@pytest.mark.parametrize(("mean", "deviation"), [(1e3, 1e-2), (1e4, 1.0), (-1e6, 1.0), (1e30, 1e25), (1e-20, 1e-20)])
def test_a_mean_far_above_the_deviation(mean: float, deviation: float):
    """y = a x + b in float32: the error is that of rounding b ~ mean / deviation, about 1e-7 mean / deviation."""
    x = np.random.default_rng(0).standard_normal((2, 8, 16, 16)) * deviation + mean
    if deviation > 1e18:  # a square that overflows gives NaN, never a plausible number
        assert np.isnan(one_norm(x)[0]).all()
        return
    y, exact = one_norm(x, 2, 1e-12)
    agree(f"mean {mean}", y, exact, np.abs(exact).max(), max(TOLERANCE, 2e-7 * abs(mean) / deviation))


@pytest.mark.parametrize("value", [0.0, 1.0, -1e10, 1e30, 1e-40, 3e38])
def test_a_constant_map_has_no_deviation(value: float):
    """The variance is exactly 0, and what is left of y = a x + b is the rounding of a x, a = 1 / sqrt(epsilon)."""
    y, _ = one_norm(np.full((1, 4, 9, 9), value), 2, 1e-3)
    assert np.abs(y).max() <= 2e-6 * abs(value) if abs(value) < 1e36 else not np.isfinite(y).all() or (y == 0).all()


def test_an_outlier_in_the_first_pixel():
    """Deviations are summed from the first pixel, which costs digits if it is far out: here 32 standard deviations."""
    x = np.random.default_rng(0).standard_normal((2, 8, 32, 32))
    x[:, :, 0, 0] = 1000
    y, exact = one_norm(x, 8)
    agree("outlier", y[:, :, 1:], exact[:, :, 1:], 1, 3e-5)


@pytest.mark.parametrize("low", [-1e38, -100, -20, -1, -1e-30, -1e-42])
def test_silu(low: float):
    x = np.float32(low) * np.linspace(-1, 1, 2 * 5 * 7 * 9).reshape(2, 5, 7, 9).astype(np.float32)
    program = Program(x)
    image = program.image()
    y = program.output(program.op("silu", x=image, out=program.like(image))).run(2)
    exact = silu(x.astype(np.float64))
    # relative above the range where e^-x is infinite in float32, x = -88.3, and exact to 1e-36 below
    agree("silu", y, exact, np.maximum(np.abs(exact), 1e-30), 4e-7)
