"""Builds an engine.plan: checkpoint -> torch network -> ONNX -> check over all timesteps -> engines -> plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from pysdk.engines.tensorrt import libraries
from pysdk.errors import ExportError
from pysdk.export.dry_run import readable
from pysdk.export.preparation import prepare, step
from pysdk.export.settings import (
    BATCH_SIZE,
    TensorrtOptions,
    as_it_is,
    check_engines,
)
from pysdk.files.atomic import check_target
from pysdk.machine.float_state import standard_floats
from pysdk.plan.container import MAX_MEMBER_BYTES
from pysdk.plan.manifest import Manifest
from pysdk.plan.writer import write_plan

if TYPE_CHECKING:
    from pysdk.export.engines.tensorrt.builder import Built
    from pysdk.export.network import Network

CHECK_SECONDS = 60.0


def check_size(network: Network, wanted: Sequence[str]) -> None:
    """ExportError if no plan can hold the network, or an engine asked for cannot read one so large."""
    from pysdk.export.lowering.onnx_files import is_large

    size = network.size or 0
    if size > MAX_MEMBER_BYTES:
        raise ExportError(
            f"{network.model.name!r} has {readable(size)} of weights in float32; a plan is smaller than 4 GiB"
        )
    if "tensorrt" in wanted and is_large(size):
        raise ExportError(
            f"{network.model.name!r} has {readable(size)} of weights in float32; TensorRT's parser is given one ONNX "
            "file, which is smaller than 2 GiB: build with --engine auto"
        )


def batch_of(network: Network, wanted: int | None) -> int:
    """Images of one network call: `wanted`, or as many as in the plan that the network was taken from, or 16."""
    return wanted or next((info.batch_size for info in network.previous), BATCH_SIZE)


@standard_floats
def build(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int | None = None,
    engine: str | Sequence[str] = "auto",
    tensorrt: TensorrtOptions | None = None,
    check_seconds: float = CHECK_SECONDS,
    tune: bool = False,
    verbose: bool = False,
    importer_options: Mapping[str, str] | None = None,
) -> Manifest:
    """Build a plan from anything an importer reads, e.g. a checkpoint folder of `pysdk train`.

    A finished TensorRT engine as source becomes the plan's only engine, as it is. A plan as source gives its network
    and all it says about it, but no engine; `out` may replace it.

    Args:
        source: what to build; see `pysdk.export.importers`.
        out: the plan to write; replaced only when the new one is complete.
        solver, steps, guidance_scale: defaults of `Sampler.sample()`, in place of the source's.
        batch_size: images in one network call; by default 16, a source plan's first engine's, or what a finished engine
            is fastest at.
        engine: "native", "onnxruntime", or "auto" for both if they can run the network, the native one first;
            "tensorrt" for a GPU, which comes before them. One or several; "tensorrt" alone brings ONNX Runtime, which
            costs no bytes, for machines that cannot run it.
        tensorrt: how to build the TensorRT engine.
        check_seconds: about how long, at most, the engines are compared with torch, and again with float64; the first
            and last timestep always are.
        tune: time convolution tactics and engines here, and put the fastest first. If not, nothing is timed: the same
            source and batch size give the same plan on any machine.
        verbose: print each step with its time and findings.
        importer_options: options of the importer.

    Returns:
        The manifest of the plan.

    Raises:
        MissingDependencyError: torch, onnx, onnxscript, safetensors or the TensorRT asked for is not installed.
        OptionError: `engine` is none of these, `tensorrt` is given without that engine, or another engine is wanted
            from a finished one.
        OutputError: `out` cannot be written.
        ExportError: a step failed; the message starts with its name.
    """
    wanted = check_engines(engine, tensorrt)
    if "tensorrt" in wanted:
        libraries.find(tensorrt.library if tensorrt else None)  # before the slow steps
    check_target(out)
    network, manifest = prepare(
        source,
        solver=solver,
        steps=steps,
        guidance_scale=guidance_scale,
        verbose=verbose,
        importer_options=importer_options,
    )
    if network.engine is not None:
        info = as_it_is(network.engine.info, engine, tensorrt, batch_size)
        with step("write the plan", verbose):
            return write_plan(out, msgspec.structs.replace(manifest, engines=(info,)), network.engine.files)
    batch_size = batch_of(network, batch_size)
    check_size(network, wanted)
    from tqdm import tqdm

    from pysdk.export import choose
    from pysdk.export.lowering import torch_to_onnx

    def track(values: list[int]) -> Iterable[int]:
        return tqdm(values, desc="check", unit="t", leave=False, disable=None)

    if verbose:
        click.echo(f"  {network.model.name}: {network.model.shape}, {network.model.parameters:,} parameters", err=True)
    with step("export to ONNX", verbose):
        onnx = torch_to_onnx.export_onnx(network)
    if verbose:
        click.echo(f"  {onnx.size:,} bytes in {' and '.join(onnx.members)}", err=True)
    with step("compile the network", verbose):
        found, reason = choose.candidates(network, onnx, wanted, batch_size, check_seconds, track, tune)
    if reason:
        click.echo(f"not for the native engine: {reason}", err=True)
    accelerated: list[Built] = []
    if "tensorrt" in wanted:
        with step("build the TensorRT engine", verbose):
            accelerated.append(_tensorrt(network, onnx.graph, batch_size, tensorrt, check_seconds, track, verbose))
    with step("check the engines", verbose):
        infos, comparison, count = choose.check(network, found, batch_size, check_seconds, track, reason, tune)
    if comparison is not None:
        click.echo(
            f"max |engine - torch| over {count} timesteps: {comparison.max_abs_error:.2e} "
            f"(limit {torch_to_onnx.MAX_RELATIVE_ERROR:g} of the largest output)",
            err=True,
        )
    for info in infos:
        if info.seconds_per_step is not None:
            click.echo(f"{info.kind}: {info.seconds_per_step:.4g} s for {batch_size} images", err=True)
    made = {(info.kind, info.precision) for info in (*(built.info for built in accelerated), *infos)}
    lost = [f"{info.kind} {info.precision}" for info in network.previous if (info.kind, info.precision) not in made]
    if lost:
        click.echo(f"not built again: {', '.join(lost)}; add them with --engine and --precision", err=True)
    with step("write the plan", verbose):
        parts = [*(engine.files for engine in found), *(built.files for built in accelerated)]
        files = {name: data for part in parts for name, data in part.items()}
        manifest = msgspec.structs.replace(manifest, engines=(*(built.info for built in accelerated), *infos))
        return write_plan(out, manifest, {**onnx.members, **files})


def _tensorrt(
    network: Network,
    onnx: bytes,
    batch_size: int,
    options: TensorrtOptions | None,
    check_seconds: float,
    track: Callable[[list[int]], Iterable[int]],
    verbose: bool,
) -> Built:
    """The TensorRT engine; `verbose` shows what its builder logs, the error at each timestep and what was built."""
    from pysdk.export.engines.tensorrt.builder import build_tensorrt

    def echo(severity: str, message: str) -> None:
        if severity != "verbose":  # thousands of lines
            click.echo(f"  TensorRT {severity}: {message}", err=True)

    built = build_tensorrt(
        network, onnx, batch_size, options or TensorrtOptions(), check_seconds, track, echo if verbose else None
    )
    click.echo(built.info.notes, err=True)
    if verbose:
        click.echo(built.summary(), err=True)
    return built
