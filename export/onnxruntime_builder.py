"""The ONNX Runtime engine of a plan: the ONNX file itself, checked and timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pysdk.export.network import Network
from pysdk.export.onnx_export import MAX_RELATIVE_ERROR, Comparison, check_finite, torch_outputs

from pysdk.engines import Engine, default_threads, onnxruntime
from pysdk.errors import ExportError
from pysdk.manifest import NETWORK_NAME, EngineInfo, ModelInfo

_TIMED_CALLS = 5


class NetworkBuffers:
    """Stand-alone buffers of one network call; see `pysdk.engines.Buffers`."""

    def __init__(self, model: ModelInfo, batch: int) -> None:
        _, height, width = model.shape
        self.network_input = np.zeros((batch, *model.shape), np.float32)
        self.network_time = np.zeros(1, np.float32)
        self.network_labels = np.zeros(batch, np.int64)
        self.network_output = np.zeros((batch, model.out_channels, height, width), np.float32)


def build(network: Network, onnx: bytes, batch_size: int, timesteps: Iterable[object]) -> EngineInfo:
    """Check the network on ONNX Runtime against torch, find out whether it is batch invariant, and time it.

    A network that came as an ONNX file has nothing to be compared with.

    Args:
        network: the network.
        onnx: its ONNX file.
        batch_size: images of one call.
        timesteps: iterated along with the comparison; a progress bar over T steps, or `range(T)`.

    Raises:
        ExportError: the outputs differ by more than `MAX_RELATIVE_ERROR`, or are not finite.
    """
    model, threads = network.model, default_threads()
    info = EngineInfo(kind="onnxruntime", member=NETWORK_NAME, precision="float32", batch_size=batch_size)
    engine = onnxruntime.load(model, info, memoryview(onnx), threads)
    comparison = None if network.module is None else compare(network, engine, timesteps)
    if comparison is not None and comparison.relative > MAX_RELATIVE_ERROR:
        raise ExportError(
            f"ONNX Runtime is {comparison.max_abs_error:.3g} away from torch where torch returns up to "
            f"{comparison.max_abs:.3g}; the limit is {MAX_RELATIVE_ERROR:g} of that"
        )
    return EngineInfo(
        kind=info.kind,
        member=info.member,
        precision=info.precision,
        batch_size=batch_size,
        batch_invariant=is_batch_invariant(model, onnx, info, batch_size, threads),
        seconds_per_step=seconds_per_call(model, engine, batch_size),
        max_abs_error=None if comparison is None else comparison.max_abs_error,
        notes=f"{engine.description}; "
        + (
            "from an ONNX file, not compared"
            if comparison is None
            else f"against torch over {len(network.schedule.betas)} timesteps"
        ),
    )


def compare(network: Network, engine: Engine, timesteps: Iterable[object]) -> Comparison:
    """The engine against torch on random input at every timestep, one image at a time."""
    buffers = NetworkBuffers(network.model, 1)
    call = engine.bind(buffers)
    error = largest = 0.0
    for (x, t, label, y), _ in zip(torch_outputs(network), timesteps, strict=True):
        buffers.network_input[:], buffers.network_time[:] = x.numpy(), t.numpy()
        if label is not None:
            buffers.network_labels[:] = label.numpy()
        call()
        expected = y.numpy()
        check_finite(expected, float(t))
        largest = max(largest, float(np.abs(expected).max()))
        difference = float(np.abs(buffers.network_output - expected).max())
        # a NaN of the engine must not pass for a small error
        error = max(error, difference) if np.isfinite(difference) else float("inf")
    return Comparison(error, largest)


def is_batch_invariant(model: ModelInfo, onnx: bytes, info: EngineInfo, batch_size: int, threads: int) -> bool:
    """Whether every image gets the same bits in batches of other sizes and with 1, 2, ... threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch_size, *model.shape)).astype(np.float32)
    labels = rng.integers(model.num_classes or 1, size=batch_size)
    reference: NDArray[np.float32] | None = None
    for count in sorted({1, 2, threads}):
        engine = onnxruntime.load(model, info, memoryview(onnx), count)
        for batch in sorted(
            {batch_size, max(1, batch_size // 2), 3, 2, 1} & set(range(1, batch_size + 1)), reverse=True
        ):
            outputs = run_in_batches(model, engine, x, labels, batch)
            reference = outputs if reference is None else reference
            if not np.array_equal(outputs, reference):
                return False
    return True


def run_in_batches(
    model: ModelInfo, engine: Engine, x: NDArray[np.float32], labels: NDArray[np.int64], batch: int
) -> NDArray[np.float32]:
    """The network on all images, `batch` at a time, at one timestep."""
    outputs = []
    for first in range(0, len(x), batch):
        part = slice(first, first + batch)
        buffers = NetworkBuffers(model, len(x[part]))
        buffers.network_input[:], buffers.network_labels[:], buffers.network_time[:] = x[part], labels[part], 1.0
        engine.bind(buffers)()
        outputs.append(buffers.network_output)
    return np.concatenate(outputs)


def seconds_per_call(model: ModelInfo, engine: Engine, batch_size: int) -> float:
    """The fastest of a few warmed-up calls at full batch."""
    buffers = NetworkBuffers(model, batch_size)
    call = engine.bind(buffers)
    call()
    times = []
    for _ in range(_TIMED_CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
