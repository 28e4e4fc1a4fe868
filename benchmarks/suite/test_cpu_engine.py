"""One step of a network, x and t to output: the native engine beside every other way to run it on this processor."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import PAUSE, Work, interleave, seconds_of
from benchmarks.network_peers import NotCompared, Peer, peers
from benchmarks.networks import Networks, float64_output

TOLERANCE = 1e-4
"""Largest error allowed, over the largest output in float64; the export's limit too."""

LEAST = 0.25
"""Seconds in one turn: a chain calls its network without a pause, so a short call is repeated as often as fits."""

TITLES = {"cifar10": "DDPM CIFAR-10", "celebahq256": "DDPM CelebA-HQ 256", "shipped": "the shipped model"}
CASES = [("cifar10", 1), ("cifar10", 4), ("cifar10", 16), ("celebahq256", 1)]
CASES += [("shipped", 1), ("shipped", 16), ("shipped", 64)]


@pytest.mark.parametrize(("name", "batch"), CASES, ids=[f"{name}-{batch}" for name, batch in CASES])
def test_cpu_engine(
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
    networks: Networks,
    threads: int,
    seconds: float,
    name: str,
    batch: int,
) -> None:
    if name == "celebahq256" and not request.config.getoption("--large"):
        pytest.skip("takes minutes; --large runs it")
    network = networks.network(name)
    inputs = network.inputs(batch)
    ours = networks.call(name, batch, inputs)
    expected = float64_output(networks.plan(name, batch), inputs)

    def error(output: np.ndarray) -> float:
        return float(np.abs(output[:1] - expected).max() / np.abs(expected).max())

    errors = {"pysdk": error(ours())}
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for title, make in peers(compiled=request.config.getoption("--compiled")).items():
        try:
            peer = make(network, inputs, threads)
            output = peer.run()
            if output.shape != ours.chain.network_output.shape or not np.isfinite(output).all():
                raise NotCompared("computes something else")
            errors[title] = error(output)
        except NotCompared as reason:
            missing[title] = str(reason)
        else:
            found[title] = peer
    assert max(errors.values()) < TOLERANCE, f"somebody computes something else: {errors}"

    calls = max(1, ceil(LEAST / min(seconds_of(ours, PAUSE) for _ in range(3))))

    def repeated(work: Work) -> Work:
        return lambda: [work() for _ in range(calls)]

    parameters = (network.network.model.parameters or 0) / 1e6
    benchmark.group = f"One network step, {TITLES[name]} ({parameters:.3g}M parameters)"
    interleave(
        benchmark,
        repeated(ours),
        {title: repeated(peer.run) for title, peer in found.items()},
        steps={title: peer.steps for title, peer in found.items()},
        seconds=seconds,
        rounds=(5, 50) if seconds else (2, 2),
        per=calls,
        work=f"batch {batch}",
        unit="ms",
        errors=errors,
        missing=missing,
    )
