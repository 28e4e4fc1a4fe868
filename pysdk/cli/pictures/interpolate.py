"""pysdk interpolate: draws the way from one picture to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pysdk.cli.pictures.drawing import PICTURE, draw, drawing_options, sampler_arguments


@click.command("interpolate")
@drawing_options
@click.argument("first", type=PICTURE)
@click.argument("second", type=PICTURE)
@click.option("-n", default=9, show_default=True, help="Number of images.")
@click.option("--timestep", type=int, help="Where they meet (default: on the sphere of latents).")
def command(first: Path, second: Path, n: int, timestep: int | None, **settings: Any) -> None:
    """Draw the way from FIRST to SECOND with PLAN."""
    arguments = sampler_arguments(settings)
    draw(
        settings,
        (first, second),
        lambda sampler, ends: sampler.interpolate(ends[0], ends[1], n, timestep=timestep, **arguments),
    )
