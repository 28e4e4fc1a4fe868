"""The command that turns a checkpoint into an engine.plan: `python export/build_engine.py` or `pysdk build`.

checkpoint -> torch network -> ONNX -> check over all timesteps -> engine -> engine.plan
"""

from __future__ import annotations

if __name__ == "__main__":
    from pysdk.machine.interrupts import leave_at_once

    leave_at_once()

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pysdk.engines.tensorrt import library as tensorrt_library
from pysdk.errors import ExportError
from pysdk.export.dry_run import readable, summary
from pysdk.export.preparation import prepare, step
from pysdk.export.settings import (
    BATCH_SIZE,
    ENGINES,
    TensorrtOptions,
    as_it_is,
    check_engines,
    tensorrt_options,
)
from pysdk.files.atomic import check_target
from pysdk.machine.float_state import standard_floats
from pysdk.plan.container import MAX_MEMBER_BYTES
from pysdk.plan.manifest import Manifest
from pysdk.plan.writer import write_plan

if TYPE_CHECKING:
    from pysdk.export.engines.tensorrt import Built
    from pysdk.export.network import Network

SHIPPED = Path("models") / "fashion-mnist"
"""The checkpoint that is built when none is named, below the root of a checkout."""

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

    A source that is a finished TensorRT engine becomes the only engine of the plan, as it is. One that is a plan gives
    its network and all that it says of it, but no engine; it may be replaced.

    Args:
        source: what to build; see `pysdk.export.importers`.
        out: the plan to write; replaced only when the new one is complete.
        solver, steps, guidance_scale: what `Sampler.sample()` does when it is not told, in place of the source's word.
        batch_size: images of one network call; by default 16, that of a plan's first engine if the source is one, or
            what a finished engine is fastest at.
        engine: "native", "onnxruntime", or "auto" for both if they can run the network, the native one first;
            "tensorrt" for a GPU, which comes before them. One or several; "tensorrt" alone brings ONNX Runtime, which
            costs no bytes, for machines that cannot run it.
        tensorrt: how to build the TensorRT engine.
        check_seconds: at most about so long are the engines compared with torch, and again with float64; the first
            and last timestep always are.
        tune: time convolution tactics and engines here, and put the fastest first. If not, nothing is timed: the same
            source and batch size give the same plan on any machine.
        verbose: print each step with its time and findings.
        importer_options: options of the importer.

    Returns:
        The manifest of the plan.

    Raises:
        MissingDependencyError: torch, onnx, onnxscript, safetensors or the TensorRT asked for is not installed.
        OptionError: `engine` is none of these, `tensorrt` is given without that engine, or a finished engine is asked
            to be another.
        OutputError: `out` cannot be written.
        ExportError: a step failed; the message starts with its name.
    """
    wanted = check_engines(engine, tensorrt)
    if "tensorrt" in wanted:
        tensorrt_library.find(tensorrt.library if tensorrt else None)  # before minutes of work
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

    from pysdk.export import choose as engine_choice
    from pysdk.export.lowering import torch_to_onnx as onnx_export

    def track(values: list[int]) -> Iterable[int]:
        return tqdm(values, desc="check", unit="t", leave=False, disable=None)

    if verbose:
        click.echo(f"  {network.model.name}: {network.model.shape}, {network.model.parameters:,} parameters", err=True)
    with step("export to ONNX", verbose):
        onnx = onnx_export.export_onnx(network)
    if verbose:
        click.echo(f"  {onnx.size:,} bytes in {' and '.join(onnx.members)}", err=True)
    with step("compile the network", verbose):
        found, reason = engine_choice.candidates(network, onnx, wanted, batch_size, check_seconds, track, tune)
    if reason:
        click.echo(f"not for the native engine: {reason}", err=True)
    accelerated: list[Built] = []
    if "tensorrt" in wanted:
        with step("build the TensorRT engine", verbose):
            accelerated.append(build_tensorrt(network, onnx.graph, batch_size, tensorrt, check_seconds, track, verbose))
    with step("check the engines", verbose):
        infos, comparison, count = engine_choice.check(network, found, batch_size, check_seconds, track, reason, tune)
    if comparison is not None:
        click.echo(
            f"max |engine - torch| over {count} timesteps: {comparison.max_abs_error:.2e} "
            f"(limit {onnx_export.MAX_RELATIVE_ERROR:g} of the largest output)",
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


def build_tensorrt(
    network: Network,
    onnx: bytes,
    batch_size: int,
    options: TensorrtOptions | None,
    check_seconds: float,
    track: Callable[[list[int]], Iterable[int]],
    verbose: bool,
) -> Built:
    """The TensorRT engine; `verbose` shows what its builder logs, the error at each timestep and what was built."""
    from pysdk.export.engines import tensorrt as tensorrt_builder

    def echo(severity: str, message: str) -> None:
        if severity != "verbose":  # thousands of lines
            click.echo(f"  TensorRT {severity}: {message}", err=True)

    built = tensorrt_builder.build(
        network, onnx, batch_size, options or TensorrtOptions(), check_seconds, track, echo if verbose else None
    )
    click.echo(built.info.notes, err=True)
    if verbose:
        click.echo(built.summary(), err=True)
    return built


@click.command("build", context_settings={"ignore_unknown_options": True})
@click.argument("source", required=False)
@click.argument("importer_options", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-o", "--out", default="engine.plan", type=click.Path(path_type=Path), show_default=True, help="Plan to write."
)
@click.option("--solver", help="Default solver of the plan (default: what the source says, else ddim).")
@click.option("--steps", type=click.IntRange(min=1), help="Default number of steps (default: what the source says).")
@click.option("--guidance-scale", type=float, help="Default classifier-free guidance scale.")
@click.option(
    "--batch-size", show_default=str(BATCH_SIZE), type=click.IntRange(1, 65_536), help="Images per network call."
)
@click.option(
    "--engine",
    default=("auto",),
    show_default=True,
    multiple=True,
    type=click.Choice(ENGINES),
    help="What runs the network, once or several times: auto is all on the CPU that can, native first; tensorrt "
    "comes before them.",
)
@tensorrt_options
@click.option(
    "--check-seconds",
    default=CHECK_SECONDS,
    show_default=True,
    type=click.FloatRange(0),
    help="Time for comparing the engines with torch, and with float64.",
)
@click.option("--tune", is_flag=True, help="Time tactics and engines here; plans of two machines then differ.")
@click.option("--dry-run", is_flag=True, help="Show what would be built, and stop.")
@click.option("-v", "--verbose", is_flag=True, help="Show what each step did.")
def command(
    source: str | None,
    importer_options: tuple[str, ...],
    out: Path,
    dry_run: bool,
    batch_size: int | None,
    engine: tuple[str, ...],
    tensorrt: TensorrtOptions | None,
    check_seconds: float,
    tune: bool,
    **settings: Any,
) -> None:
    """Build an engine.plan from SOURCE, e.g. a folder written by `pysdk train` (default: the shipped model).

    Options that are not listed here go to the importer of the source as --name value.
    """
    options = pairs(importer_options if source is None or not source.startswith("-") else (source, *importer_options))
    if source is None or source.startswith("-"):
        shipped = Path(__file__).resolve().parent.parent / SHIPPED
        if not shipped.is_dir():
            raise click.UsageError("There is no shipped checkpoint beside this installation; name a SOURCE.")
        source = str(shipped)
    if dry_run:
        wanted = check_engines(engine, tensorrt)
        network, manifest = prepare(source, importer_options=options, **settings)
        ready = None if network.engine is None else as_it_is(network.engine.info, engine, tensorrt, batch_size)
        if ready is None:
            check_size(network, wanted)
        click.echo(summary(manifest, network.size, batch_of(network, batch_size), wanted, tensorrt, ready))
        return
    build(
        source,
        out,
        batch_size=batch_size,
        engine=engine,
        tensorrt=tensorrt,
        check_seconds=check_seconds,
        tune=tune,
        importer_options=options,
        **settings,
    )
    click.echo(f"wrote {out} ({out.stat().st_size:,} bytes)")


def pairs(arguments: Sequence[str]) -> dict[str, str]:
    """{"num_channels": "128"} from ["--num_channels", "128"] or ["--num-channels=128"]; a flag alone is "true"."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise click.UsageError(f"{name!r} is neither an option nor the one SOURCE.")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        options[name[2:].replace("-", "_")] = value
    return options


if __name__ == "__main__":
    from pysdk.cli.commands import run

    run(command)
