"""The chain with a network that does nothing, beside a diffusers scheduler on the same fixed output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from benchmarks.interleave import interleave
from benchmarks.peers import ddim_scheduler, ddpm_scheduler
from benchmarks.workload import Workload

STEPS = 50
TOLERANCE = 1e-3
"""diffusers' tables are float32; samples are of order 1."""


def scheduler_loop(scheduler: Any, output: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """The loop of a diffusers pipeline without its network."""
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        x = scheduler.step(output, t, x, generator=generator).prev_sample
    return x


@pytest.mark.benchmark(group="Update alone (a network that does nothing)")
@pytest.mark.parametrize("n", [1, 16, 64])
@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_update(benchmark: BenchmarkFixture, workload: Workload, seconds: float, solver: str, n: int) -> None:
    manifest, shape = workload.plan.manifest, (n, *workload.model.shape)
    table = workload.table(solver, STEPS)
    chain = workload.chain(n)
    chain.attach(lambda: None)
    generator = torch.Generator().manual_seed(0)
    chain.network_output[:] = torch.randn(chain.network_output.shape, generator=generator).numpy()
    scheduler = ddim_scheduler(manifest) if solver == "ddim" else ddpm_scheduler(manifest)
    channels = shape[1] if solver == "ddim" else workload.model.out_channels
    output = torch.from_numpy(chain.network_output[:, :channels].copy())

    def ours() -> None:
        workload.begin(chain, table, n)
        chain.advance(len(table))

    def diffusers() -> None:
        scheduler_loop(scheduler, output, torch.randn(shape, generator=generator), generator)

    check(workload, chain, table, scheduler_loop, scheduler, output)
    interleave(
        benchmark,
        ours,
        {"diffusers scheduler": diffusers},
        seconds=seconds / 4,
        work=f"{solver.upper()}, {n} image{'s' * (n > 1)}",
        unit="ns/element/row",
        per=STEPS * int(np.prod(shape)),
    )


def check(
    workload: Workload, chain: Any, table: Any, loop: Callable[..., Tensor], scheduler: Any, output: Tensor
) -> None:
    """Both end on the same x from the same noise."""
    shape = chain.x.shape
    draws = torch.Generator().manual_seed(1)
    expected = loop(scheduler, output, torch.randn(shape, generator=draws), draws)
    again = torch.Generator().manual_seed(1)
    workload.begin(chain, table, shape[0], noise=lambda number: torch.randn(shape, generator=again).numpy())
    chain.advance(len(table))
    assert np.abs(chain.x - expected.numpy()).max() < TOLERANCE
