"""What more threads bring: the native engine, and by itself a product of two matrices, which is all compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from benchmarks.interleave import Work, interleave
from benchmarks.networks import Networks

GROUP = pytest.mark.benchmark(group="Threads, each count against one thread")
SIZE = 2048
PAUSE = 0.05
"""OpenBLAS's idle threads look for work longer than the others'."""


@GROUP
@pytest.mark.parametrize("batch", [1, 16])
def test_threads(benchmark: BenchmarkFixture, networks: Networks, threads: int, seconds: float, batch: int) -> None:
    inputs = networks.network("cifar10").inputs(batch)
    works = {count: networks.call("cifar10", batch, inputs, count) for count in counts(threads)}
    outputs = [np.array(work()) for work in works.values()]
    assert all(np.array_equal(output, outputs[0]) for output in outputs), "threads change the result"
    compare(benchmark, works.__getitem__, threads, seconds, f"CIFAR-10 network, batch {batch}")


@GROUP
def test_product(benchmark: BenchmarkFixture, threads: int, seconds: float) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))

    def product(count: int) -> Work:
        def run() -> None:
            with threadpool_limits(count, "blas"):
                np.matmul(a, b)

        return run

    compare(benchmark, product, threads, seconds, f"numpy's product of {SIZE} x {SIZE} float32")


def counts(threads: int) -> list[int]:
    """1, 2, 4, ... up to all of them."""
    return sorted({1, threads, *(2**power for power in range(threads.bit_length()) if 2**power <= threads)})


def compare(benchmark: BenchmarkFixture, work: Callable[[int], Work], threads: int, seconds: float, title: str) -> None:
    """Time `work(count)` for all counts in turns; skips where there is one thread."""
    if threads == 1:
        pytest.skip("has nothing to compare with one thread")
    fewer = {f"{count} threads": work(count) for count in counts(threads)[:-1]}
    interleave(
        benchmark,
        work(threads),
        fewer,
        seconds=seconds,
        rounds=(3, 60),
        pause=PAUSE,
        work=title,
        unit="ms",
        ways=[
            (f"{title}, 1 to {count} threads", "1 threads", "pysdk" if count == threads else f"{count} threads")
            for count in counts(threads)[1:]
        ],
    )
