"""What the machine gives at most, measured: arithmetic in numpy's matrix product, memory in copying."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

SIZE = 2048
COPIED = 256 << 20
"""Bytes, many times the caches."""


@dataclass(frozen=True)
class Limits:
    """Floating-point operations and bytes per second; a copied byte counts twice, read and written."""

    flops: float
    bytes: float

    @classmethod
    def measure(cls, threads: int, repeats: int = 5) -> Limits:
        """The fastest of some runs."""
        rng = np.random.default_rng(0)
        a, b, out = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(3))
        with threadpool_limits(threads, "blas"):
            product = fastest(lambda: np.matmul(a, b, out=out), repeats)
        source, target = (np.full(COPIED, fill, np.uint8) for fill in (1, 2))
        parts = [slice(COPIED * i // threads, COPIED * (i + 1) // threads) for i in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            copy = fastest(lambda: list(pool.map(lambda part: np.copyto(target[part], source[part]), parts)), repeats)
        return cls(flops=2 * SIZE**3 / product, bytes=2 * COPIED / copy)

    def best(self, other: Limits) -> Limits:
        """The higher of two measurements."""
        return Limits(max(self.flops, other.flops), max(self.bytes, other.bytes))

    def __str__(self) -> str:
        return f"{self.flops / 1e9:.0f} GFLOP/s in numpy's matrix product, {self.bytes / 1e9:.1f} GB/s in copying"


def fastest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest call; one more before them warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[1:])
