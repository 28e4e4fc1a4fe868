"""Standard normals: our counter-based noise beside the generators of numpy and torch, all on one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import interleave
from pysdk import _testing

REPEATS = 10


@pytest.mark.benchmark(group="Noise, one thread")
@pytest.mark.parametrize(("n", "shape"), [(16, (1, 28, 28)), (64, (3, 64, 64))], ids=["16x1x28x28", "64x3x64x64"])
def test_noise(benchmark: BenchmarkFixture, seconds: float, n: int, shape: tuple[int, ...]) -> None:
    images = np.arange(n, dtype=np.uint64)
    pcg, philox = np.random.Generator(np.random.PCG64(0)), np.random.Generator(np.random.Philox(0))
    generator = torch.Generator().manual_seed(0)
    draws: dict[str, Callable[[], Any]] = {
        "pysdk": lambda: _testing.normal(0, images, 0, shape),
        "numpy PCG64": lambda: pcg.standard_normal((n, *shape), np.float32),
        "numpy Philox": lambda: philox.standard_normal((n, *shape), np.float32),
        "torch.randn": lambda: torch.randn((n, *shape), generator=generator),
    }
    for draw in draws.values():
        z = np.asarray(draw())
        assert (z.dtype, z.shape) == (np.dtype(np.float32), (n, *shape))
        assert abs(z.mean()) < 5 / np.sqrt(z.size)
        assert abs(z.var() - 1) < 5 * np.sqrt(2 / z.size)

    def repeated(draw: Callable[[], object]) -> list[object]:
        return [draw() for _ in range(REPEATS)]

    works = {name: partial(repeated, draw) for name, draw in draws.items()}
    interleave(
        benchmark,
        works.pop("pysdk"),
        works,
        seconds=seconds / 4,
        work=f"{n} x {' x '.join(map(str, shape))}",
        unit="ns/element",
        per=REPEATS * n * int(np.prod(shape)),
    )
