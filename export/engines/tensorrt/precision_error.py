"""What a precision costs: a network's error at every timestep, and how close it comes to overflow.

Both precisions are emulated (see `Typed`). ONNX Runtime could run the float16 file on the CPU, but it computes
neighbours in float32 and leaves out the roundings between them, so the network would look better than it is; and it has
no bfloat16.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from pysdk.errors import ExportError
from pysdk.export.check import Track, affordable
from pysdk.export.lowering.precision import LARGEST, Typed, alternative
from pysdk.plan.manifest import ModelInfo, ScheduleInfo

MAX_RELATIVE_ERROR = 0.1
"""Largest allowed |typed - float32| / max |float32|: beyond it the network has lost its meaning, not only digits."""

_LEVELS = 50
"""How many levels are compared for a network of sigma."""


@dataclass(frozen=True)
class TypedError:
    """A typed network against its float32 original, on random input.

    Attributes:
        precision: its body's.
        times: (K,), the timesteps (what the network is told).
        errors: (K,), largest |typed - float32| at each.
        max_abs: largest |float32|.
        peak, layer, peak_time: the largest value inside the body, where and when.
        counts: operations in the precision, and in float32.
    """

    precision: str
    times: NDArray[np.float64]
    errors: NDArray[np.float64]
    max_abs: float
    peak: float
    layer: str
    peak_time: float
    counts: tuple[int, int]

    @property
    def max_abs_error(self) -> float:
        """Over all timesteps."""
        return float(self.errors.max())

    def summary(self) -> str:
        """One line for people."""
        worst = int(np.argmax(self.errors))
        return (
            f"{self.precision} body ({self.counts[0]} operations, {self.counts[1]} in float32), emulated on the CPU "
            f"(float32 sums, every result rounded), against float32 at {len(self.times)} timesteps: "
            f"max error {self.max_abs_error:.2e} at t = {self.times[worst]:g}, median over the timesteps "
            f"{np.median(self.errors):.2e}, of outputs up to {self.max_abs:.3g}; largest value inside {self.peak:.3g} "
            f"of {LARGEST[self.precision]:.3g}, in {self.layer} at t = {self.peak_time:g}"
        )

    def table(self) -> str:
        """The error over the timesteps, in at most 20 groups of neighbours, a line each."""
        groups = np.array_split(np.arange(len(self.times)), min(20, len(self.times)))
        return "\n".join(
            f"  t = {self.times[group[0]]:g} to {self.times[group[-1]]:g}: max error {self.errors[group].max():.2e}"
            for group in groups
        )


def measure(
    model: ModelInfo,
    schedule: ScheduleInfo,
    onnx: bytes,
    precision: str,
    check_seconds: float,
    track: Track = list,
    threads: int = 1,
) -> TypedError:
    """The error of a precision.

    Args:
        model, schedule: what the plan says of the network.
        onnx: its float32 ONNX file.
        precision: "float16" or "bfloat16".
        check_seconds: about how long, at most; the first and last timestep are always compared.
        track: wraps the timesteps while they are compared, e.g. in a progress bar.
        threads: ONNX Runtime's.

    Raises:
        ExportError: a layer overflows, the output is not finite, or its error is above `MAX_RELATIVE_ERROR`; the
            message names the layer and timestep.
    """
    typed = Typed(onnx, precision, emulated=True)
    exact = session(onnx, threads)
    rounded = session(typed.model.SerializeToString(), threads)
    inputs = Inputs(model, schedule)
    start = time.perf_counter()
    for run in (exact, rounded):
        run(inputs(0))
    indices = affordable(len(inputs), time.perf_counter() - start, check_seconds)
    errors, largest, peaks = [], 0.0, []
    over: NDArray[np.intp] | list[int]
    for index in track(indices):
        feed = inputs(index)
        (expected,) = exact(feed)
        output, inside = rounded(feed)
        if not np.isfinite(expected).all():
            raise ExportError(f"the float32 network returns NaN or infinity at t = {inputs.times[index]:g}")
        over = np.flatnonzero(~(inside <= LARGEST[precision])) if typed.layers else []
        if len(over):
            raise ExportError(
                f"{precision} overflows in {typed.layers[over[0]]} at t = {inputs.times[index]:g}: its output reaches "
                f"{inside[over[0]]:.4g}, the largest number is {LARGEST[precision]:.5g}; build with --precision "
                f"{alternative(precision)}"
            )
        if not np.isfinite(output).all():
            raise ExportError(
                f"the {precision} network returns NaN or infinity at t = {inputs.times[index]:g}, though no layer of "
                f"its body overflows; build with --precision {alternative(precision)}"
            )
        errors.append(float(np.abs(output - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        peaks.append(inside)
    highest = np.stack(peaks)
    at, layer = np.unravel_index(int(highest.argmax()), highest.shape)
    times = inputs.times[indices]
    found = TypedError(
        precision,
        times,
        np.array(errors),
        largest,
        float(highest.max()),
        typed.layers[layer] if typed.layers else "no layer",
        float(times[at]),
        typed.counts,
    )
    if found.max_abs_error > MAX_RELATIVE_ERROR * largest:
        raise ExportError(
            f"the {precision} network is {found.max_abs_error:.3g} away from float32 at t = "
            f"{times[int(np.argmax(found.errors))]:g}, where the network returns up to {largest:.3g}; the limit is "
            f"{MAX_RELATIVE_ERROR:g} of that; build with --precision {alternative(precision)}"
        )
    return found


class Inputs:
    """Random input for each timestep, or for each of some levels of sigma."""

    def __init__(self, model: ModelInfo, schedule: ScheduleInfo) -> None:
        self.model = model
        if schedule.edm is None:
            self.times = np.arange(len(schedule.betas or ()), dtype=np.float64)
            self.scales = np.ones(len(self.times))
        else:
            sigma = np.geomspace(schedule.edm.sigma_min, schedule.edm.sigma_max, _LEVELS)
            whole = model.prediction_type == "sample"
            self.times = sigma if whole else np.log(sigma) / 4
            data = schedule.edm.sigma_data or 0.5
            self.scales = np.hypot(sigma, data) if whole else np.ones(_LEVELS)

    def __len__(self) -> int:
        return len(self.times)

    def __call__(self, index: int) -> dict[str, NDArray[np.generic]]:
        """What ONNX Runtime is given: x (1, C, H, W), t (1,), label (1,)."""
        rng = np.random.default_rng(index)
        x = (self.scales[index] * rng.standard_normal((1, *self.model.shape))).astype(np.float32)
        feed: dict[str, NDArray[np.generic]] = {"x": x, "t": np.array([self.times[index]], np.float32)}
        if self.model.num_classes is not None:
            feed["label"] = rng.integers(self.model.num_classes, size=1)
        return feed


Run = Callable[[dict[str, NDArray[np.generic]]], Sequence[NDArray[np.float32]]]


def session(onnx: bytes, threads: int) -> Run:
    """A function that runs an ONNX file in memory on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    made = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    return lambda feed: made.run(None, feed)
