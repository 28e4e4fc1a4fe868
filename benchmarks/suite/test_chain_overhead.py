"""A whole chain beside its network calls alone: what the loop around the network costs (goal: ratio <= 1.01)."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import interleave
from benchmarks.workload import Workload


class Stopwatch:
    """A denoiser that adds up the time of its calls."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.calls = 0
        self.seconds = 0.0

    def __call__(self) -> None:
        start = time.perf_counter()
        self.call()
        self.seconds += time.perf_counter() - start
        self.calls += 1


@pytest.mark.benchmark(group="Chain overhead")
@pytest.mark.parametrize(
    ("solver", "steps", "n"), [("ddim", 50, 16), ("ddim", 50, 1), ("ddpm", None, 1)], ids=["ddim16", "ddim1", "ddpm1"]
)
def test_chain_overhead(
    benchmark: BenchmarkFixture, workload: Workload, seconds: float, solver: str, steps: int | None, n: int
) -> None:
    table = workload.table(solver, steps)
    chain = workload.chain(n)
    network = workload.engine.bind(chain)

    def run() -> None:
        workload.begin(chain, table, n)
        chain.advance(len(table))

    def calls_alone() -> None:
        for _ in range(len(table)):
            network()

    shares = []
    for _ in range(4):
        stopwatch = Stopwatch(network)
        chain.attach(stopwatch)
        start = time.perf_counter()
        run()
        shares.append(1 - stopwatch.seconds / (time.perf_counter() - start))
        assert stopwatch.calls == len(table)
    assert np.isfinite(chain.x).all()

    chain.attach(network)
    interleave(
        benchmark,
        run,
        {"network calls alone": calls_alone},
        seconds=2 * seconds,
        rounds=(2, 100),
        work=f"{solver.upper()}, {len(table)} steps, {n} image{'s' * (n > 1)}",
        unit="s",
        share=median(shares[1:]),  # the first run warmed up
    )
