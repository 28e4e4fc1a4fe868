"""Chooses a plan's engines: those asked for that can run the network, checked; in a fixed order, or timed."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import torch

from pysdk.errors import ExportError
from pysdk.export.check import (
    Candidate,
    Track,
    affordable,
    compare,
    is_batch_invariant,
    require_close,
    seconds_per_call,
)
from pysdk.export.engines.native.builder import build_native
from pysdk.export.engines.native.program import NotCovered
from pysdk.export.engines.onnxruntime import build_onnxruntime
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.lowering.torch_to_onnx import Comparison, example_inputs
from pysdk.export.network import Network
from pysdk.machine.processors import default_threads
from pysdk.plan.manifest import EngineInfo


def candidates(
    network: Network,
    onnx: OnnxFiles,
    wanted: Sequence[str],
    batch_size: int,
    check_seconds: float,
    track: Track,
    tune: bool = False,
) -> tuple[list[Candidate], str | None]:
    """The CPU engines, not checked against torch yet, and why the native one is not among them.

    Raises:
        ExportError: the native engine is wanted and cannot run the network.
    """
    found, reason = [], None
    if "auto" in wanted or "native" in wanted:
        threads = default_threads()
        try:
            if network.schedule.betas is None:
                raise NotCovered("the network is told sigma, not a timestep")
            steps = len(network.schedule.betas)
            found.append(build_native(network.model, onnx, batch_size, steps, threads, check_seconds, track, tune))
        except NotCovered as error:
            reason = str(error)
            if "native" in wanted:
                raise ExportError(f"{reason}; build with --engine onnxruntime or auto") from error
    if "auto" in wanted or "onnxruntime" in wanted:
        found.append(build_onnxruntime(network.model, onnx, batch_size))
    return found, reason


def check(
    network: Network,
    found: Sequence[Candidate],
    batch_size: int,
    check_seconds: float,
    track: Track,
    reason: str | None,
    tune: bool = False,
) -> tuple[list[EngineInfo], Comparison | None, int]:
    """Engines compared with torch, checked for batch invariance and, if `tune`, timed.

    There is nothing to compare with if the network came as an ONNX file or a plan.

    Returns:
        What the plan says about each, in the order given or, if timed, fastest first; the largest error among them; the
        number of timesteps compared.

    Raises:
        ExportError: outputs differ by more than `MAX_RELATIVE_ERROR`, or are not finite.
    """
    threads, model = default_threads(), network.model
    engines = [candidate.load(threads) for candidate in found]
    compared: list[Comparison] = []
    against = "from a plan, not compared again" if network.previous else "from an ONNX file, not compared"
    timesteps: list[int] = []
    if network.module is not None:
        total = len(network.schedule.betas or ())
        timesteps = affordable(total, seconds_each(network), check_seconds / (1 + len(found)))
        compared = compare(network, engines, track(timesteps))
        against = "compared with torch"
        for candidate, comparison in zip(found, compared, strict=True):
            require_close(comparison, candidate.title)
    seconds = seconds_per_call(model, engines, batch_size) if tune else [None for _ in engines]
    engines.clear()  # `is_batch_invariant` loads others, and each has the weights
    infos = []
    for index, candidate in enumerate(found):
        native = f"native engine: {reason}" if reason and candidate.info.kind != "native" else ""
        infos.append(
            msgspec.structs.replace(
                candidate.info,
                batch_invariant=is_batch_invariant(model, candidate.load, batch_size, threads),
                seconds_per_step=seconds[index],
                max_abs_error=compared[index].max_abs_error if compared and tune else None,
                tuned=tune,
                notes="; ".join(note for note in (against, candidate.info.notes, native) if note),
            )
        )
    if tune:
        infos.sort(key=lambda info: info.seconds_per_step or 0.0)
    worst = max(compared, key=lambda comparison: comparison.max_abs_error, default=None)
    return infos, worst, len(timesteps) if compared else 0


def seconds_each(network: Network) -> float:
    """Seconds of torch for one image, roughly."""
    assert network.module is not None
    inputs = example_inputs(network, 1)
    start = time.perf_counter()
    with torch.no_grad():
        network.module(*inputs)
    return time.perf_counter() - start
