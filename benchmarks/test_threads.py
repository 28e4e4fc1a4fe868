"""What more threads bring: the native engine, and beside it a product of two matrices, which is all compute."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from threadpoolctl import threadpool_limits

from benchmarks.interleave import Work, interleave
from benchmarks.networks import Networks

SIZE = 2048
PAUSE = 0.05
"""OpenBLAS's idle threads look for work longer than the others'."""


@pytest.mark.benchmark(group="Threads, each count against one thread")
@pytest.mark.parametrize("batch", [1, 16])
def test_threads(benchmark: BenchmarkFixture, networks: Networks, threads: int, seconds: float, batch: int) -> None:
    if threads == 1:
        pytest.skip("has nothing to compare with one thread")
    counts = sorted({1, threads, *(2**power for power in range(threads.bit_length()) if 2**power <= threads)})
    inputs = networks.network("cifar10").inputs(batch)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))

    def product(count: int) -> None:
        with threadpool_limits(count, "blas"):
            np.matmul(a, b)

    works: dict[str, Work] = {}
    for count in counts:
        works[f"network, {count}"] = networks.call("cifar10", batch, inputs, count)
        works[f"product, {count}"] = lambda count=count: product(count)
    outputs = [np.array(works[f"network, {count}"]()) for count in counts]
    assert all(np.array_equal(output, outputs[0]) for output in outputs), "threads change the result"

    titles = {"network": f"CIFAR-10 network, batch {batch}", "product": f"numpy's product of {SIZE} x {SIZE} float32"}
    interleave(
        benchmark,
        works.pop(f"network, {threads}"),
        works,
        seconds=2 * seconds,
        rounds=(3, 30),
        pause=PAUSE,
        work=f"batch {batch}",
        unit="ms",
        ways=[
            (
                f"{title}, 1 to {count} threads",
                f"{name}, 1",
                "pysdk" if (name, count) == ("network", threads) else f"{name}, {count}",
            )
            for name, title in titles.items()
            for count in counts[1:]
        ],
    )
