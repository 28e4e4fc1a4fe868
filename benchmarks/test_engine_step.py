"""One network call: the engine on the chain's own buffers, beside the same network on the usual roads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.interleave import interleave
from benchmarks.peers import OnnxUnet, TorchUnet
from benchmarks.workload import Workload

TOLERANCE = 1e-4
"""Of the largest output, the limit of the export as well."""


@pytest.mark.benchmark(group="Network call")
@pytest.mark.parametrize("batch", [1, 16, 64])
def test_engine_step(benchmark: BenchmarkFixture, workload: Workload, seconds: float, batch: int) -> None:
    chain = workload.chain(batch)
    ours = workload.engine.bind(chain)
    rng = np.random.default_rng(0)
    chain.network_input[:] = rng.standard_normal(chain.network_input.shape, np.float32)
    chain.network_time[:] = 500
    chain.network_labels[:] = workload.labels(batch)

    x, t = torch.from_numpy(chain.network_input.copy()), torch.tensor([500.0])
    labels = None if workload.model.num_classes is None else torch.from_numpy(workload.labels(batch))
    arrays = (x.numpy(), t.numpy(), None if labels is None else labels.numpy())
    manifest = workload.plan.manifest
    eager = TorchUnet(manifest, workload.checkpoint)
    last = TorchUnet(manifest, workload.checkpoint, channels_last=True)
    onnx = OnnxUnet(workload.plan, threads=workload.threads)
    x_last = x.contiguous(memory_format=torch.channels_last)
    peers = {
        "torch eager": lambda: eager.predict(x, t, labels),
        "torch channels_last": lambda: last.predict(x_last, t, labels),
        "onnxruntime": lambda: onnx.run(*arrays),
    }

    ours()
    for name, peer in peers.items():
        expected = np.asarray(peer())
        error = np.abs(chain.network_output - expected).max() / np.abs(expected).max()
        assert error < TOLERANCE, f"{name} computes something else; was the plan built from this checkpoint?"
    interleave(benchmark, ours, peers, seconds=seconds, work=f"batch {batch}", unit="ms")
