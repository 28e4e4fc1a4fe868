"""The native engine of a plan: the network's program with tactics chosen and accuracy checked against float64."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pysdk.engines import native
from pysdk.engines.contract import Engine
from pysdk.errors import EngineError
from pysdk.export.check import Candidate, NetworkBuffers, Track, affordable
from pysdk.export.engines.native import float64, tactics
from pysdk.export.engines.native.from_onnx.lowering import lower
from pysdk.export.engines.native.fusion import fuse
from pysdk.export.engines.native.program import AnyOp, Conv, NotCovered, Program, writes
from pysdk.export.engines.native.weights import pack
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.lowering.torch_to_onnx import Comparison
from pysdk.plan.manifest import NETWORK_NAME, EngineInfo, ModelInfo

CONSTANTS_NAME = "native.constants"

MAX_RELATIVE_ERROR = 1e-5
"""Largest allowed |native - float64| / max |float64|, over the timesteps checked."""

_REPEATS = 5
_SECONDS = 10.0
"""After which a run is not repeated: a network of seconds is measured well enough by one."""
_CHUNK_PIXELS = 1 << 15


def build_native(
    model: ModelInfo,
    onnx: OnnxFiles,
    batch_size: int,
    timesteps: int,
    threads: int,
    check_seconds: float,
    track: Track = list,
    tune: bool = False,
) -> Candidate:
    """The native engine for a network.

    Args:
        model: what the plan says of the network.
        onnx: its files.
        batch_size: images of one call; tactics are chosen for it.
        timesteps: T of the schedule.
        threads: the processors to measure with, if `tune`.
        check_seconds: about so long is the program computed in float64; timesteps 0 and T - 1 always are.
        track: wraps the timesteps while they are computed, e.g. in a progress bar.
        tune: choose tactics by measuring them here; if not, the same network and batch size give the same program on
            any machine.

    Raises:
        NotCovered: the network has an operation that the native engine lacks, or it would be too inaccurate.
    """
    plain = lower(onnx.graph, model, onnx.weights)
    program = tactics.guessed(fuse(plain), batch_size)
    if tune:
        program = tactics.measured(program, lambda tried: profile(tried, model, onnx, batch_size, threads))
    # what is chosen must not depend on how fast this machine is: only then is it checked as long as there is time
    program, _ = accurate(program, Checked(plain, model, timesteps, 0.0), onnx)
    checked = Checked(plain, model, timesteps, check_seconds, track)
    comparison = checked.compare(loaded(program, model, onnx, 1))
    if comparison.relative > MAX_RELATIVE_ERROR:
        raise NotCovered(inaccurate(comparison))
    head, constants = pack(program, onnx.graph, onnx.weights)
    info = EngineInfo(
        kind="native",
        member="native.json",
        data=(NETWORK_NAME, CONSTANTS_NAME, *onnx.beside),
        precision="float32",
        batch_size=batch_size,
        tuned=tune,
        notes=described(program),
    )

    def load(threads: int) -> Engine:
        return ready(head, constants, model, info, onnx, threads)

    return Candidate("the native engine", info, load, {info.member: head, CONSTANTS_NAME: constants})


def described(program: Program) -> str:
    """How many convolutions are computed how."""
    used = [op.tactic for op in program.ops if isinstance(op, Conv)]
    return "convolutions: " + ", ".join(f"{used.count(name)} {name}" for name in tactics.TACTICS if name in used)


def ready(
    head: bytes, constants: bytes, model: ModelInfo, info: EngineInfo, onnx: OnnxFiles, threads: int
) -> native.NativeEngine:
    """The engine in these files."""
    sources = [memoryview(onnx.graph), memoryview(constants), *onnx.beside.values()]
    return native.load(model, info, memoryview(head), threads, *sources, trust=True)


def loaded(program: Program, model: ModelInfo, onnx: OnnxFiles, threads: int) -> native.NativeEngine:
    """A program, ready to run. NotCovered if the runtime refuses it."""
    head, constants = pack(program, onnx.graph, onnx.weights)
    info = EngineInfo(kind="native", member="native.json", precision="float32", batch_size=1)
    try:
        return ready(head, constants, model, info, onnx, threads)
    except EngineError as error:
        raise NotCovered(str(error)) from None


def profile(program: Program, model: ModelInfo, onnx: OnnxFiles, batch_size: int, threads: int) -> Sequence[float]:
    """Seconds of each operation at full batch, the fastest of some runs."""
    network = loaded(program, model, onnx, threads).bind(NetworkBuffers(model, batch_size))
    network.profile()  # warms up
    start, runs = time.perf_counter(), [network.profile()]
    while len(runs) < _REPEATS and time.perf_counter() - start < _SECONDS:
        runs.append(network.profile())
    return [min(times) for times in zip(*runs, strict=True)]


def accurate(program: Program, checked: Checked, onnx: OnnxFiles) -> tuple[Program, Comparison]:
    """The program with as many fast convolutions as its accuracy allows, and its error.

    Raises:
        NotCovered: it is too inaccurate without any.
    """
    while True:
        comparison = checked.compare(loaded(program, checked.model, onnx, 1))
        if comparison.relative <= MAX_RELATIVE_ERROR:
            return program, comparison
        slower = tactics.more_accurate(program, checked.layers(program, onnx))
        if slower is None:
            raise NotCovered(inaccurate(comparison))
        program = slower


def inaccurate(comparison: Comparison) -> str:
    """Why a program is not taken."""
    return (
        f"it is {comparison.relative:.1e} of the largest output away from float64; the limit is {MAX_RELATIVE_ERROR:g}"
    )


class Checked:
    """Random images at some timesteps, and what a program makes of them in float64: the network as it was lowered, so
    that fusion has to be as accurate as the kernels.

    Attributes:
        x, labels: float32 (K, C, H, W) and int64 (K,).
        timesteps: (K,).
        expected: float64 (K, out_channels, H, W).
    """

    def __init__(self, program: Program, model: ModelInfo, timesteps: int, seconds: float, track: Track = list) -> None:
        self.model = model
        rng = np.random.default_rng(0)
        start = time.perf_counter()
        float64.run(program, np.zeros((1, *model.shape)), 0.0, np.zeros(1, np.int64))
        self.timesteps = np.array(affordable(timesteps, time.perf_counter() - start, seconds), np.float64)
        count = len(self.timesteps)
        self.x = rng.standard_normal((count, *model.shape)).astype(np.float32)
        self.labels = rng.integers(model.num_classes or 1, size=count)
        chunk = max(1, _CHUNK_PIXELS // (model.shape[1] * model.shape[2]))
        self.expected = np.empty((count, model.out_channels, *model.shape[1:]))
        remaining = iter(track(list(range(count))))
        while part := list(islice(remaining, chunk)):
            self.expected[part] = float64.run(program, self.x[part], self.timesteps[part], self.labels[part])

    def compare(self, engine: Engine) -> Comparison:
        """The engine's largest error."""
        buffers = NetworkBuffers(self.model, 1)
        call = engine.bind(buffers)
        error = 0.0
        for x, t, label, expected in zip(self.x, self.timesteps, self.labels, self.expected, strict=True):
            buffers.network_input[:], buffers.network_time[:], buffers.network_labels[:] = x, t, label
            call()
            difference = float(np.abs(buffers.network_output - expected).max())
            error = max(error, difference) if np.isfinite(difference) else float("inf")
        return Comparison(error, float(np.abs(self.expected).max()))

    def layers(self, program: Program, onnx: OnnxFiles) -> dict[int, float]:
        """Relative error of each Winograd convolution by itself, on what it reads at the first timestep."""
        fast = [op for op in program.ops if isinstance(op, Conv) and op.tactic != "direct"]
        inputs: dict[int, NDArray[np.float32]] = {}
        wanted = {op.x[0] for op in fast}

        def see(op: AnyOp, value: float64.Array) -> None:
            if (out := writes(op)) in wanted and out is not None:
                inputs[out] = value.astype(np.float32)

        float64.run(program, self.x[:1], self.timesteps[0], self.labels[:1], see)
        return {op.out: error_alone(program, op, inputs[op.x[0]], onnx) for op in fast}


def error_alone(program: Program, op: Conv, x: NDArray[np.float32], onnx: OnnxFiles) -> float:
    """Relative error of one convolution on this input; infinite if a network of it alone would change the size."""
    layer = tactics.layer(program, op)
    x = x.repeat(op.upsample, 2).repeat(op.upsample, 3)
    expected = float64.run(layer, x, 0.0)
    _, channels, height, width = x.shape
    if expected.shape[2:] != (height, width):
        return float("inf")
    model = ModelInfo(name="layer", shape=(channels, height, width), out_channels=expected.shape[1])
    buffers = NetworkBuffers(model, 1)
    buffers.network_input[:] = x
    loaded(layer, model, onnx, 1).bind(buffers)()
    return float(np.abs(buffers.network_output - expected).max() / max(np.abs(expected).max(), 1e-30))
