"""The command that turns a checkpoint into an engine.plan: `python export/build_engine.py` or `pysdk build`.

checkpoint -> torch network -> ONNX -> check over all timesteps -> engine -> engine.plan
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import click

from pysdk.engines import require
from pysdk.errors import ExportError
from pysdk.manifest import NETWORK_NAME, DefaultsInfo, Manifest
from pysdk.plan import write_plan

SHIPPED = Path("models") / "fashion-mnist"
"""The checkpoint that is built when none is named, below the root of a checkout."""

INSTALL = "pip install 'pysdk[export]'"


@contextmanager
def step(name: str, verbose: bool) -> Iterator[None]:
    """One named step: its failure says which it was, `verbose` says what it took."""
    start = time.perf_counter()
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ExportError(f"{name}: {error}") from error
    if verbose:
        click.echo(f"{name}: {time.perf_counter() - start:.1f} s", err=True)


def build(
    checkpoint: Path, out: Path, *, defaults: DefaultsInfo | None = None, batch_size: int = 16, verbose: bool = False
) -> Manifest:
    """Build a plan from a checkpoint folder of `pysdk train`.

    Args:
        checkpoint: folder with model.safetensors and model.json.
        out: the plan to write; replaced only when the new one is complete.
        defaults: what `Sampler.sample()` does when it is not told; DDIM in 50 steps if not given.
        batch_size: images of one network call.
        verbose: print each step with its time and findings.

    Returns:
        The manifest of the plan.

    Raises:
        MissingDependencyError: torch, onnx, onnxscript or safetensors is not installed.
        ExportError: a step failed; the message starts with its name.
    """
    for package in ("torch", "safetensors", "onnx", "onnxscript"):
        require(package, INSTALL)
    with step("load the checkpoint", verbose):
        from pysdk.export import onnx_export, onnxruntime_builder
        from pysdk.export.network import load_network
        from tqdm import tqdm

        network = load_network(checkpoint, defaults or DefaultsInfo(solver="ddim", steps=50))
    if verbose:
        click.echo(f"  {network.model.name}: {network.model.shape}, {network.model.parameters:,} parameters", err=True)
    with step("export to ONNX", verbose):
        onnx = onnx_export.export_onnx(network)
    if verbose:
        click.echo(f"  opset {onnx_export.OPSET}, {len(onnx):,} bytes", err=True)
    timesteps = range(len(network.schedule.betas))
    with (
        step("check and time the ONNX Runtime engine", verbose),
        tqdm(timesteps, desc="check", unit="t", leave=False, disable=None) as bar,
    ):
        engine = onnxruntime_builder.build(network, onnx, batch_size, bar)
    click.echo(
        f"max |ONNX - torch| over {len(timesteps)} timesteps: {engine.max_abs_error:.2e} "
        f"(limit {onnx_export.MAX_RELATIVE_ERROR:g} of the largest output)",
        err=True,
    )
    with step("write the plan", verbose):
        manifest = Manifest(
            pysdk_version=version("pysdk"),
            created_by="pysdk build",
            model=network.model,
            schedule=network.schedule,
            defaults=network.defaults,
            engines=(engine,),
        )
        return write_plan(out, manifest, {NETWORK_NAME: onnx})


@click.command("build")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", default="engine.plan", type=click.Path(path_type=Path), show_default=True, help="Plan to write."
)
@click.option("--solver", default="ddim", show_default=True, help="Default solver of the plan.")
@click.option("--steps", default=50, show_default=True, type=click.IntRange(min=1), help="Default number of steps.")
@click.option("--guidance-scale", type=float, help="Default classifier-free guidance scale.")
@click.option(
    "--batch-size", default=16, show_default=True, type=click.IntRange(1, 65_536), help="Images per network call."
)
@click.option("-v", "--verbose", is_flag=True, help="Show what each step did.")
def command(
    checkpoint: Path | None,
    out: Path,
    solver: str,
    steps: int,
    guidance_scale: float | None,
    batch_size: int,
    verbose: bool,
) -> None:
    """Build an engine.plan from CHECKPOINT, a folder written by `pysdk train` (default: the shipped model)."""
    if checkpoint is None:
        checkpoint = Path(__file__).resolve().parent.parent / SHIPPED
        if not checkpoint.is_dir():
            raise click.UsageError("There is no shipped checkpoint beside this installation; name a CHECKPOINT folder.")
    defaults = DefaultsInfo(solver=solver, steps=steps, guidance_scale=guidance_scale)
    build(checkpoint, out, defaults=defaults, batch_size=batch_size, verbose=verbose)
    click.echo(f"wrote {out} ({out.stat().st_size:,} bytes)")


if __name__ == "__main__":
    from pysdk.cli import run

    run(command)
