"""pysdk compression: rate and distortion of progressive lossy compression with a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pysdk.cli.likelihood import ask, question_options
from pysdk.likelihood.compression import check_path, compression_curve, save_curve


@click.command("compression")
@question_options(default_count=32)
@click.option(
    "-o",
    "--out",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    default=("compression.csv", "compression.png"),
    show_default=True,
    help="A .csv, .npz or .png; several times for several.",
)
def command(paths: tuple[Path, ...], **arguments: Any) -> None:
    """Rate and distortion at every step when images are sent with PLAN (DDPM, section 4.3)."""
    for path in paths:  # before anything runs
        check_path(path)
    found = ask(**arguments)
    curve = compression_curve(found)
    title = f"{arguments['plan'].name}: {curve.images} images of {arguments['data']}, {found.bits_per_dim:.3f} bits/dim"
    for path in paths:
        save_curve(curve, path, title)
        click.echo(f"wrote {path}")
