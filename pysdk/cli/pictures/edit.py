"""pysdk edit: redraws pictures from a noised start (SDEdit)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pysdk.cli.pictures.drawing import PICTURE, draw, drawing_options, sampler_arguments


@click.command("edit")
@drawing_options
@click.argument("pictures", nargs=-1, required=True, type=PICTURE)
@click.option("--solver", help="ddpm, ddim, ... (default: the plan's).")
@click.option("--strength", type=float, help="Share of the steps that are run, above 0 to 1 (default: 0.5).")
@click.option("--timestep", type=int, help="The timestep to start from instead.")
def command(
    pictures: tuple[Path, ...], solver: str | None, strength: float | None, timestep: int | None, **settings: Any
) -> None:
    """Redraw PICTURES with PLAN from a noised start (SDEdit)."""
    arguments = {"solver": solver, **sampler_arguments(settings)}
    draw(
        settings,
        pictures,
        lambda sampler, read: sampler.image_to_image(read, strength=strength, timestep=timestep, **arguments),
    )
