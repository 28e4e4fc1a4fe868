"""The command that turns a checkpoint into an engine.plan: `python export/build_engine.py` or `pysdk build`."""

from __future__ import annotations

if __name__ == "__main__":
    from pysdk.machine.early_exit import leave_at_once

    leave_at_once()

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pysdk.export.build import CHECK_SECONDS, batch_of, build, check_size
from pysdk.export.dry_run import summary
from pysdk.export.preparation import prepare
from pysdk.export.settings import BATCH_SIZE, ENGINES, TensorrtOptions, as_it_is, check_engines, tensorrt_options

SHIPPED = Path("models") / "fashion-mnist"
"""The checkpoint that is built when none is named, below the root of a checkout."""


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
