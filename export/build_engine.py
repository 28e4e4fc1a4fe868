"""The command that turns a checkpoint into an engine.plan: `python export/build_engine.py` or `pysdk build`.

checkpoint -> torch network -> ONNX -> check over all timesteps -> engine -> engine.plan
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from pysdk.edm import EdmSchedule
from pysdk.engines import require
from pysdk.errors import ExportError, MissingDependencyError
from pysdk.guidance import resolve_guidance
from pysdk.manifest import NETWORK_NAME, DefaultsInfo, Manifest
from pysdk.plan import write_plan
from pysdk.request import resolve_table
from pysdk.schedule import Schedule

if TYPE_CHECKING:
    from pysdk.export.network import Network

SHIPPED = Path("models") / "fashion-mnist"
"""The checkpoint that is built when none is named, below the root of a checkout."""

INSTALL = "pip install 'pysdk[export]'"


@contextmanager
def step(name: str, verbose: bool) -> Iterator[None]:
    """One named step: its failure says which it was, `verbose` says what it took."""
    if sys.stderr.isatty():
        click.echo(f"{name} ...", err=True)
    start = time.perf_counter()
    try:
        yield
    except MissingDependencyError:
        raise  # its message is the command to run
    except Exception as error:
        raise ExportError(f"{name}: {error}") from error
    if verbose:
        click.echo(f"{name}: {time.perf_counter() - start:.1f} s", err=True)


def check_defaults(manifest: Manifest, schedule: Schedule | EdmSchedule) -> None:
    """OptionError unless `Sampler.sample()` can run without arguments, which is to be known before minutes of work."""
    resolve_table(manifest, schedule, None, None, {})
    resolve_guidance(manifest.model, manifest.defaults.guidance_scale, 1)


def build(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    solver: str | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    verbose: bool = False,
    importer_options: Mapping[str, str] | None = None,
) -> Manifest:
    """Build a plan from anything an importer reads, e.g. a checkpoint folder of `pysdk train`.

    Args:
        source: what to build; see `pysdk.export.importers`.
        out: the plan to write; replaced only when the new one is complete.
        solver, steps, guidance_scale: what `Sampler.sample()` does when it is not told, in place of the source's word.
        batch_size: images of one network call.
        verbose: print each step with its time and findings.
        importer_options: options of the importer.

    Returns:
        The manifest of the plan.

    Raises:
        MissingDependencyError: torch, onnx, onnxscript or safetensors is not installed.
        ExportError: a step failed; the message starts with its name.
    """
    network, manifest = prepare(
        source,
        solver=solver,
        steps=steps,
        guidance_scale=guidance_scale,
        verbose=verbose,
        importer_options=importer_options,
    )
    from pysdk.export import onnx_export, onnxruntime_builder
    from tqdm import tqdm

    if verbose:
        click.echo(f"  {network.model.name}: {network.model.shape}, {network.model.parameters:,} parameters", err=True)
    with step("export to ONNX", verbose):
        onnx = onnx_export.export_onnx(network)
    if verbose:
        click.echo(f"  {len(onnx):,} bytes", err=True)
    timesteps = range(len(network.schedule.betas or ()))
    with (
        step("check and time the ONNX Runtime engine", verbose),
        tqdm(timesteps, desc="check", unit="t", leave=False, disable=None) as bar,
    ):
        engine = onnxruntime_builder.build(network, onnx, batch_size, bar)
    if engine.max_abs_error is not None:
        click.echo(
            f"max |ONNX - torch| over {len(timesteps)} timesteps: {engine.max_abs_error:.2e} "
            f"(limit {onnx_export.MAX_RELATIVE_ERROR:g} of the largest output)",
            err=True,
        )
    with step("write the plan", verbose):
        return write_plan(out, msgspec.structs.replace(manifest, engines=(engine,)), {NETWORK_NAME: onnx})


def prepare(
    source: str | os.PathLike[str],
    *,
    solver: str | None,
    steps: int | None,
    guidance_scale: float | None,
    verbose: bool,
    importer_options: Mapping[str, str] | None,
) -> tuple[Network, Manifest]:
    """The network of a source and the manifest of its plan, without engines; `build` documents arguments and errors."""
    for package in ("torch", "safetensors", "onnx", "onnxscript"):
        require(package, INSTALL)
    with step("load the checkpoint", verbose):
        from pysdk.export.importers import load_network

        network = load_network(os.fspath(source), dict(importer_options or {}))
        manifest = Manifest(
            pysdk_version=version("pysdk"),
            created_by="pysdk build",
            model=network.model,
            schedule=network.schedule,
            defaults=override(network.defaults, solver=solver, steps=steps, guidance_scale=guidance_scale),
        )
    with step("check the defaults", verbose):
        check_defaults(manifest, network.make_schedule())
    return network, manifest


def summary(manifest: Manifest, batch_size: int) -> str:
    """What `build` would write, one line each."""
    model, defaults = manifest.model, manifest.defaults
    channels, height, width = model.shape
    clip = {"none": "not clipped", "clamp": f"clipped to [-{defaults.clip.limit:g}, {defaults.clip.limit:g}]"}
    options = [f"{name}={value}" for name, value in defaults.options.items()]
    count = "unknown" if model.parameters is None else f"{model.parameters:,}"
    size = "unknown" if model.parameters is None else f"about {4e-6 * model.parameters:.3g} MB"
    lines = {
        "network": f"{model.name}: {channels}x{height}x{width}, {model.out_channels} channels out, {count} parameters",
        "reads": f"{model.prediction_type}, variance {model.variance_type}",
        "classes": "none"
        if model.num_classes is None
        else f"{model.num_classes}, null label {'none' if model.null_label is None else model.null_label}",
        "schedule": manifest.schedule.summary(),
        "solver": ", ".join([defaults.solver, f"{defaults.steps or 'all'} steps", *options]),
        "estimate": clip.get(defaults.clip.kind, f"dynamic threshold, ratio {defaults.clip.ratio:g}"),
        "engine": f"onnxruntime, float32, batches of {batch_size}",
        "size": size,
    }
    return "\n".join(f"{name:<9}{line}" for name, line in lines.items())


def override(
    defaults: DefaultsInfo, *, solver: str | None, steps: int | None, guidance_scale: float | None
) -> DefaultsInfo:
    """The defaults of a source with those the user gave instead; another solver drops the options of the first."""
    if solver is not None and solver != defaults.solver:
        defaults = replace(defaults, solver=solver, options={})
    return replace(
        defaults,
        steps=defaults.steps if steps is None else steps,
        guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
    )


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
    "--batch-size", default=16, show_default=True, type=click.IntRange(1, 65_536), help="Images per network call."
)
@click.option("--dry-run", is_flag=True, help="Show what would be built, and stop.")
@click.option("-v", "--verbose", is_flag=True, help="Show what each step did.")
def command(
    source: str | None, importer_options: tuple[str, ...], out: Path, dry_run: bool, batch_size: int, **settings: Any
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
        _, manifest = prepare(source, importer_options=options, **settings)
        click.echo(summary(manifest, batch_size))
        return
    build(source, out, batch_size=batch_size, importer_options=options, **settings)
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
    from pysdk.cli import run

    run(command)
