"""Convolutions and linear layers against float64, over random and awkward shapes.

Errors are relative to |bias| + |residual| + the largest sum of |weight| |x| behind a result of the image, the scale of
what was summed: a result may be near zero by cancellation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from kit.engine.programs import Array, Program, agree, fit_output, side_by_side
from torch.nn import functional

TOLERANCE = {"direct": 1e-6, "winograd2": 1e-6, "winograd4": 4e-6}

CHANNELS = st.one_of(st.integers(1, 129), st.sampled_from([1, 3, 15, 16, 17, 32, 48, 64, 128, 129]))
SIDES = st.one_of(st.integers(1, 12), st.sampled_from([1, 16, 17]))
PADS = st.integers(0, 3)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def convolve(x: Array, weight: Array, pads: list[int], stride: int, upsample: int) -> Array:
    top, left, bottom, right = pads
    maps = torch.from_numpy(x).double().repeat_interleave(upsample, 2).repeat_interleave(upsample, 3)
    maps = functional.pad(maps, (left, right, top, bottom))
    return functional.conv2d(maps, torch.from_numpy(weight).double(), stride=stride).numpy()


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    tactic = draw(st.sampled_from(["direct", "winograd2", "winograd4"]))
    direct = tactic == "direct"
    kernel = draw(st.tuples(*[st.sampled_from([1, 2, 3, 5])] * 2)) if direct else (3, 3)
    return {
        "tactic": tactic,
        "kernel": kernel,
        "stride": draw(st.sampled_from([1, 2])) if direct else 1,
        "upsample": draw(st.sampled_from([1, 1, 2])),
        "pads": draw(st.lists(PADS, min_size=4, max_size=4)),
        "channels": [draw(CHANNELS)],
        "out": draw(CHANNELS),
        "size": draw(st.tuples(SIDES, SIDES)),
        "batch": draw(st.integers(1, 3)),
        "threads": draw(st.integers(1, 4)),
        "bias": draw(st.booleans()),
        "residual": draw(st.booleans()),
        "embedding": draw(st.sampled_from([None, "shared", "per image"])),
        "seed": draw(st.integers(0, 2**32)),
    }


def check(case: dict[str, Any]) -> None:
    seed, batch, out, (height, width) = case["seed"], case["batch"], case["out"], case["size"]
    xs = [normal(seed + 10 + i, batch, c, height, width) for i, c in enumerate(case["channels"])]
    x = np.concatenate(xs, axis=1)
    weight = normal(seed + 1, out, x.shape[1], *case["kernel"])
    shape = {name: case[name] for name in ("pads", "stride", "upsample")}
    top, left, bottom, right = case["pads"]
    if (
        min(
            height * case["upsample"] + top + bottom - weight.shape[2],
            width * case["upsample"] + left + right - weight.shape[3],
        )
        < 0
    ):
        return reject()
    exact = convolve(x, weight, **shape)
    size = convolve(np.abs(x), np.abs(weight), **shape).max(axis=(1, 2, 3), keepdims=True)
    arrays = list(xs)
    if case["residual"]:
        arrays.append(normal(seed + 2, *exact.shape))
        exact = exact + arrays[-1]
        size = size + np.abs(arrays[-1])
    image = side_by_side(*arrays)
    grow = [(0, 0), (0, 0)] + [(0, max(0, exact.shape[i] - image.shape[i])) for i in (2, 3)]
    program = Program(np.pad(image, grow))
    tensors = program.maps(*arrays)
    fields: dict[str, Any] = {}
    if case["residual"]:
        fields["residual"] = tensors.pop()
    if case["bias"]:
        fields["bias"] = normal(seed + 3, out)
        exact = exact + fields["bias"][:, None, None]
        size = size + np.abs(fields["bias"])[:, None, None]
    if case["embedding"]:
        first = seed % 20
        vectors = normal(seed + 4, batch, first + out + 3)
        if case["embedding"] == "shared":
            vectors[:] = vectors[0]
        tensor = program.shared_vector(vectors[0]) if case["embedding"] == "shared" else program.vectors(vectors)
        fields["embedding"] = [tensor, first]
        added = vectors[:, first : first + out, None, None]
        exact, size = exact + added, size + np.abs(added)
    y = fit_output(program, program.conv(tensors, weight, tactic=case["tactic"], **shape, **fields))
    result = y.run(case["threads"])[:, :, : exact.shape[2], : exact.shape[3]]
    # a single output of a single product has nothing to be relative to but itself
    agree(case["tactic"], result, exact, np.maximum(size, 1e-2), TOLERANCE[case["tactic"]])


@settings(deadline=None, max_examples=100)
@given(convolutions())
def test_convolution(case: dict[str, Any]):
    check(case)


@settings(deadline=None, max_examples=25)
@given(convolutions(), CHANNELS)
def test_two_maps_as_one(case: dict[str, Any], second: int):
    check(case | {"tactic": "direct", "kernel": (1, 1), "channels": [*case["channels"], second]})


@pytest.mark.parametrize("tactic", TOLERANCE)
@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (0, 0, 0, 0), (2, 0, 1, 3), (0, 1, 2, 0)])
def test_every_size_around_a_tile(tactic: str, pads: tuple[int, ...]):
    """Results of 1 to 9 pixels a side: whole, cut and single tiles of 2 and 4."""
    for side in range(3, 10):
        case = {
            "tactic": tactic, "kernel": (3, 3), "stride": 1, "upsample": 1, "pads": list(pads), "channels": [17],
            "out": 18, "size": (side, 12 - side), "batch": 2, "threads": 2, "bias": True, "residual": False,
            "embedding": None, "seed": side,
        }  # fmt: skip
        check(case)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("tactic", "sides"), [("winograd2", (13, 14)), ("winograd4", (24, 28))])
def test_weights_transformed_beforehand_or_not(tactic: str, sides: tuple[int, int], batch: int):
    """From 48 tiles an image on they are."""
    for side in sides:
        case = {
            "tactic": tactic, "kernel": (3, 3), "stride": 1, "upsample": 1, "pads": [1] * 4, "channels": [21],
            "out": 35, "size": (side, side), "batch": batch, "threads": 2, "bias": True, "residual": True,
            "embedding": "per image", "seed": side,
        }  # fmt: skip
        check(case)


@pytest.mark.parametrize("kernel", [(31, 1), (1, 31), (30, 31)])
def test_kernel_as_large_as_the_padded_map(kernel: tuple[int, int]):
    height, width = kernel
    pads = [height // 2, width // 2, (height - 1) // 2, (width - 1) // 2]
    x, weight = normal(0, 2, 2, 1, 1), normal(1, 3, 2, height, width)
    program = Program(x)
    y = program.output(program.conv([program.image()], weight, pads)).run()
    exact = np.einsum("bc,oc->bo", x[:, :, 0, 0].astype(float), weight[:, :, pads[0], pads[1]].astype(float))
    np.testing.assert_allclose(y[:, :, 0, 0], exact, rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(CHANNELS, CHANNELS, st.integers(1, 30), st.booleans(), st.booleans(), st.integers(1, 3), st.integers(0, 2**32))
def test_linear(inputs: int, outputs: int, batch: int, bias: bool, shared: bool, threads: int, seed: int):
    x, weight = normal(seed, batch, inputs), normal(seed + 1, outputs, inputs)
    offset = normal(seed + 2, outputs) if bias else None
    program = Program(np.zeros((batch, outputs, 1, 1)))
    if shared:
        x[:] = x[0]
    vector = program.shared_vector(x[0]) if shared else program.vectors(x)
    y = program.linear(vector, weight, offset)
    if shared:  # the output is per image
        y = program.op("add", a=program.image(), b=y, out=program.tensor(outputs))
    exact = x.astype(float) @ weight.astype(float).T + (0 if offset is None else offset)
    size = np.abs(x) @ np.abs(weight).T + (0 if offset is None else np.abs(offset))
    agree("linear", program.output(y).run(threads)[:, :, 0, 0], exact, np.maximum(size, 1e-2), 1e-6)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_weight_of_several_parts(transposed: bool):
    """Rows stacked from anywhere in the sources, at any address, as they are or transposed."""
    rng = np.random.default_rng(0)
    pieces = [rng.standard_normal((rows, 5), np.float32) for rows in (1, 20, 3)]
    program = Program(rng.standard_normal((2, 24, 1, 1)))
    vector = program.vectors(rng.standard_normal((2, 5)))
    table = np.frombuffer(program.source[-40:], np.float32).reshape(2, 5)
    parts = []
    for piece in pieces:
        program.source += b"?"
        parts.append((0, len(program.source), len(piece), 5, transposed))
        program.source += (piece.T if transposed else piece).tobytes()
    program.weights.append(((24, 5), parts))
    y = program.op("linear", x=vector, out=program.tensor(24), weight=len(program.weights) - 1)
    exact = table.astype(float) @ np.concatenate(pieces).astype(float).T
    np.testing.assert_allclose(program.output(y).run()[:, :, 0, 0], exact, rtol=1e-5, atol=1e-6)
