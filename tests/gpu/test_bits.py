"""Noise and update on a GPU have the bits of the numpy twin, on every path."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from kit.chain_cases import assert_same_bits, make_case
from kit.cuda.on_gpu import MODEL, play_on_gpu, small_network, smooth_chain

from pysdk import _native, images, noise
from pysdk.diffusion.table import Clip

PATHS = ["while", "step", "plain"]
CLIPS = [Clip.none(), Clip.clamp(0.8), Clip.dynamic(0.9), Clip.dynamic(0.995, 1.3)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: f"{clip.kind}-{clip.max_threshold}")
@pytest.mark.parametrize("seed", range(12))
def test_update_equals_the_numpy_twin(torch: Any, device: _native.Device, seed: int, clip: Clip, path: str) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(size) for size in rng.integers(1, (4, 40, 40)))
    flags = dict(zip(("learned_variance", "guided", "initial", "skips", "known"), rng.random(5) < 0.5))  # noqa: B905
    case = make_case(rng, batch=int(rng.integers(1, 5)), shape=shape, rows=6, clip=clip, zeros=0.2, **flags)
    chain = play_on_gpu(torch, device, case, path, half=flags["guided"] and bool(seed % 2))
    assert chain.advance(99) == 6
    assert chain.path == path
    state, _ = case.reference()
    assert_same_bits(chain.x.numpy(), state.x)
    assert_same_bits(chain.denoised.numpy(), state.d1)


@pytest.mark.parametrize("clip", CLIPS[:3], ids=lambda clip: clip.kind)
def test_nan_and_infinity_pass_through_alike(torch: Any, device: _native.Device, clip: Clip) -> None:
    case = make_case(np.random.default_rng(0), batch=4, shape=(1, 6, 7), rows=3, clip=clip, zeros=0.0)
    case.outputs[0, 0, 0, 1, 1] = np.nan
    case.outputs[0, 1, 0, 2, 2] = np.inf
    case.outputs[1, 2, 0, 3, 3] = -np.inf
    chain = play_on_gpu(torch, device, case, "auto")
    chain.advance(3)
    assert_same_bits(chain.x.numpy(), case.reference()[0].x)


def test_large_images(torch: Any, device: _native.Device) -> None:
    """Many blocks per image, and a selection that each thread of its block goes round many times for."""
    case = make_case(
        np.random.default_rng(0), batch=3, shape=(3, 257, 263), rows=2, clip=Clip.dynamic(0.995), zeros=0.0
    )
    chain = play_on_gpu(torch, device, case, "auto")
    chain.advance(2)
    assert_same_bits(chain.x.numpy(), case.reference()[0].x)


def test_initial_noise_is_that_of_the_gallery(device: _native.Device) -> None:
    seeds = np.array([0, 7, 2**64 - 1, 12345], np.uint64)
    numbers = np.array([0, 2**40, 5, 2**64 - 1], np.uint64)
    chain = _native.CudaChain(device, batch=4, shape=(3, 33, 35))
    chain.begin(_native.StepTable(np.zeros((1, len(_native.STEP_COLUMNS)), np.float32)), seeds=seeds, images=numbers)
    assert_same_bits(chain.x.numpy(), noise.normal(seeds, numbers, 0, (3, 33, 35)))


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 64, 64), (4, 8, 8)])
def test_bytes_are_those_of_the_host(device: _native.Device, shape: tuple[int, int, int]) -> None:
    start = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    start[0].flat[: min(256, math.prod(shape))] = (np.arange(256, dtype=np.float32) / 127.5 - 1)[: math.prod(shape)]
    chain = _native.CudaChain(device, batch=5, shape=shape)
    table = _native.StepTable(np.zeros((1, len(_native.STEP_COLUMNS)), np.float32))
    zeros = np.zeros(5, np.uint64)
    chain.begin(table, seeds=zeros, images=zeros, initial=start)
    to = device.empty((5, *shape[1:], shape[0]), "uint8")
    assert chain.bytes(to, images=5) is None
    np.testing.assert_array_equal(to.numpy(), images.to_uint8(start))
    start[3].flat[-1] = np.inf
    chain.begin(table, seeds=zeros, images=zeros, initial=start)
    assert chain.bytes(None, images=5) == 3


def test_every_path_gives_the_same_bits_with_a_network(torch: Any, device: _native.Device) -> None:
    network, results = small_network(torch), []
    for path in PATHS:
        chain, start = smooth_chain(torch, device, network, path=path)
        start()
        chain.advance(99)
        results.append(chain.x.numpy())
    assert np.isfinite(results[0]).all()
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])
    assert results[0].shape == (4, *MODEL.shape)
