"""Attention against float64: any number and size of heads, in the layouts of the exporters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.engine.programs import Array, Program, agree, side_by_side

TOLERANCE = 2e-6


def attend(q: Array, k: Array, v: Array, scale: float) -> Array:
    """(B, heads, head_channels, tokens) each."""
    q, k, v = (torch.from_numpy(a).double() for a in (q, k, v))
    weights = torch.softmax(scale * torch.einsum("bhct,bhcs->bhts", q, k), -1)
    return torch.einsum("bhts,bhcs->bhct", weights, v).numpy()


def split(qkv: Array, heads: int, layout: str) -> tuple[Array, Array, Array]:
    """q, k and v, (B, heads, head_channels, tokens) each."""
    batch, channels = qkv.shape[:2]
    head = channels // 3 // heads
    if layout == "legacy":  # q, k, v of the first head, then of the second
        q, k, v = qkv.reshape(batch, heads, 3, head, -1).transpose(2, 0, 1, 3, 4)
    else:  # q of all heads, then k, then v
        q, k, v = qkv.reshape(batch, 3, heads, head, -1).transpose(1, 0, 2, 3, 4)
    return q, k, v


def run(
    qkv: Array, heads: int, layout: str, scale: float, threads: int = 1, residual: Array | None = None
) -> tuple[Array, Array]:
    """The engine's result and the exact one; qkv is (B, 3 heads head_channels, H, W)."""
    batch, channels, height, width = qkv.shape
    size = channels // 3
    head = size // heads
    q, k, v = split(qkv, heads, layout)
    if layout == "legacy":
        places = [[0, i * head, 3 * head] for i in range(3)]
    else:
        places = [[0, i * size, head] for i in range(3)]
    arrays = [qkv]
    if layout == "three tensors":
        arrays = [a.reshape(batch, size, height, width) for a in (q, k, v)]
        places = [[i, 0, head] for i in range(3)]
    if residual is not None:
        arrays.append(residual)
    program = Program(side_by_side(*arrays))
    tensors = program.maps(*arrays)
    added = {} if residual is None else {"residual": tensors.pop()}
    fields = added | {name: [tensors[at[0]], *at[1:]] for name, at in zip("qkv", places, strict=True)}
    out = program.tensor(size, height, width)
    program.output(program.op("attention", out=out, heads=heads, head_channels=head, scale=scale, **fields))
    exact = attend(q, k, v, scale).reshape(batch, size, height, width)
    return program.run(threads), exact if residual is None else exact + residual


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 5),
    st.one_of(st.integers(1, 40), st.sampled_from([16, 32, 64])),
    st.tuples(st.integers(1, 10), st.integers(1, 10)),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from(["legacy", "new", "three tensors"]),
    st.floats(0.01, 1),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_attention(
    heads: int,
    head: int,
    size: tuple[int, int],
    batch: int,
    threads: int,
    layout: str,
    scale: float,
    add: bool,
    seed: int,
):
    rng = np.random.default_rng(seed)
    qkv = 2 * rng.standard_normal((batch, 3 * heads * head, *size), np.float32)
    residual = rng.standard_normal((batch, heads * head, *size), np.float32) if add else None
    y, exact = run(qkv, heads, layout, scale, threads, residual)
    # scores of s are rounded to 6e-8 s, so their exponentials to 6e-8 s of themselves; usual and largest ones
    q, k, _ = split(qkv, heads, layout)
    largest = scale * np.abs(np.einsum("bhct,bhcs->bhts", q, k)).max()
    agree(
        "attention", y, exact, np.abs(qkv).max() * max(1, scale * np.sqrt(head), 6e-8 * largest / TOLERANCE), TOLERANCE
    )


def test_one_token_gives_its_value():
    qkv = np.random.default_rng(0).standard_normal((2, 30, 1, 1), np.float32) * 1e3
    y, _ = run(qkv, 2, "new", 1.0)
    np.testing.assert_array_equal(y, qkv[:, 20:])


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 30.0])
def test_scores_that_are_all_alike_or_far_apart(scale: float):
    """A mean of all values, or one of them; 17 tokens leave 15 places of the last block empty."""
    qkv = np.random.default_rng(1).standard_normal((1, 24, 1, 17), np.float32) * 30
    y, exact = run(qkv, 2, "new", scale)
    agree("attention", y, exact, np.abs(exact).max(), 1e-6 if scale < 1 else 1e-2)
