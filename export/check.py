"""Checks of every engine: that it computes the network, whether it gives the same bits in any batch, and how fast."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysdk.engines.contract import Engine
from pysdk.errors import ExportError
from pysdk.export.lowering.torch_to_onnx import MAX_RELATIVE_ERROR, Comparison, check_finite, torch_outputs
from pysdk.export.network import Network
from pysdk.plan.manifest import EngineInfo, ModelInfo

TIMED_CALLS = 5
TIMED_SECONDS = 20.0
"""No further turn begins after this: one is enough for a network that takes seconds."""
PAUSE = 0.02
"""Seconds before an engine's turn: longer than the idle threads of the one before keep spinning."""

Load = Callable[[int], Engine]
"""The engine with so many threads."""

Track = Callable[[list[int]], Iterable[int]]
"""Hands on what it gets, e.g. through a progress bar."""


@dataclass(frozen=True)
class Candidate:
    """An engine that was built and may go into the plan.

    Attributes:
        title: its name for people.
        info: what the plan will say about it, without what `check` finds.
        load: makes it ready to run.
        files: the members it adds to the plan.
    """

    title: str
    info: EngineInfo
    load: Load
    files: Mapping[str, bytes]


class NetworkBuffers:
    """Stand-alone buffers of one network call; see `pysdk.engines.contract.Buffers`."""

    def __init__(self, model: ModelInfo, batch: int) -> None:
        _, height, width = model.shape
        self.network_input = np.zeros((batch, *model.shape), np.float32)
        self.network_time = np.zeros(1, np.float32)
        self.network_labels = np.zeros(batch, np.int64)
        self.network_output = np.zeros((batch, model.out_channels, height, width), np.float32)


def compare(network: Network, engines: Sequence[Engine], timesteps: Iterable[int]) -> list[Comparison]:
    """Engines against torch on random input, one image at a time at each of these timesteps.

    Raises:
        ExportError: torch itself returns NaN or infinity.
    """
    buffers = NetworkBuffers(network.model, 1)
    calls = [engine.bind(buffers) for engine in engines]
    errors, largest = [0.0 for _ in engines], 0.0
    for x, t, label, y in torch_outputs(network, timesteps):
        buffers.network_input[:], buffers.network_time[:] = x.numpy(), t.numpy()
        if label is not None:
            buffers.network_labels[:] = label.numpy()
        expected = y.numpy()
        check_finite(expected, float(t))
        largest = max(largest, float(np.abs(expected).max()))
        for index, call in enumerate(calls):
            buffers.network_output.fill(np.nan)
            call()
            difference = float(np.abs(buffers.network_output - expected).max())
            # a NaN of the engine must not pass for a small error
            errors[index] = max(errors[index], difference) if np.isfinite(difference) else float("inf")
    return [Comparison(error, largest) for error in errors]


def require_close(comparison: Comparison, title: str) -> None:
    """ExportError if the engine is further from torch than `MAX_RELATIVE_ERROR`."""
    if comparison.relative > MAX_RELATIVE_ERROR:
        raise ExportError(
            f"{title} is {comparison.max_abs_error:.3g} away from torch where torch returns up to "
            f"{comparison.max_abs:.3g}; the limit is {MAX_RELATIVE_ERROR:g} of that"
        )


def affordable(timesteps: int, seconds_each: float, budget: float) -> list[int]:
    """All timesteps, 0..timesteps - 1, or as many as `budget` seconds allow, evenly spread from the first to the last.

    At least 2 (if there are), whatever they take.
    """
    count = min(timesteps, max(2, int(budget / max(seconds_each, 1e-9))))
    return sorted({round(value) for value in np.linspace(0, timesteps - 1, count)})


def is_batch_invariant(model: ModelInfo, load: Load, batch_size: int, threads: int) -> bool:
    """Whether every image gets the same bits in batches of other sizes and with 1, 2, ... threads."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch_size, *model.shape)).astype(np.float32)
    labels = rng.integers(model.num_classes or 1, size=batch_size)
    reference: NDArray[np.float32] | None = None
    for count in sorted({1, 2, threads}):
        engine = load(count)
        for batch in sorted(
            {batch_size, max(1, batch_size // 2), 3, 2, 1} & set(range(1, batch_size + 1)), reverse=True
        ):
            outputs = run_in_batches(model, engine, x, labels, batch)
            reference = outputs if reference is None else reference
            if not np.array_equal(outputs, reference):
                return False
        del engine  # before the next one is loaded: both would have the weights
    return True


def run_in_batches(
    model: ModelInfo, engine: Engine, x: NDArray[np.float32], labels: NDArray[np.int64], batch: int, t: float = 1.0
) -> NDArray[np.float32]:
    """The network on all images, `batch` at a time, at one timestep."""
    outputs = []
    for first in range(0, len(x), batch):
        part = slice(first, first + batch)
        buffers = NetworkBuffers(model, len(x[part]))
        buffers.network_input[:], buffers.network_labels[:], buffers.network_time[:] = x[part], labels[part], t
        engine.bind(buffers)()
        outputs.append(buffers.network_output)
    return np.concatenate(outputs)


def seconds_per_call(model: ModelInfo, engines: Sequence[Engine], batch_size: int) -> list[float]:
    """The fastest of a few warmed-up calls of each engine at full batch, taken in turns of two after a pause."""
    buffers = NetworkBuffers(model, batch_size)
    calls = [engine.bind(buffers) for engine in engines]
    fastest = [math.inf] * len(calls)
    begin = time.perf_counter()
    for turn in range(TIMED_CALLS):
        if turn and time.perf_counter() - begin > TIMED_SECONDS:
            break
        for index, call in enumerate(calls):
            time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            call()
            fastest[index] = min(fastest[index], time.perf_counter() - start)
    return fastest
