"""pysdk inpaint: draws a part of pictures anew (RePaint)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pysdk.cli.pictures.drawing import PICTURE, draw, drawing_options, sampler_arguments
from pysdk.errors import OptionError
from pysdk.files.pictures import read_picture


@click.command("inpaint")
@drawing_options
@click.argument("pictures", nargs=-1, required=True, type=PICTURE)
@click.option("--mask", required=True, type=PICTURE, help="Picture of the same size: white where to draw.")
@click.option("--solver", help="ddpm or ddim (default: the plan's).")
@click.option("--jump-length", default=10, show_default=True, help="Steps taken back together.")
@click.option("--jump-n-sample", default=10, show_default=True, help="How often each stretch is drawn; 1: no jumps.")
def command(
    pictures: tuple[Path, ...], mask: Path, solver: str | None, jump_length: int, jump_n_sample: int, **settings: Any
) -> None:
    """Draw the masked part of PICTURES anew with PLAN (RePaint)."""
    arguments = {
        "solver": solver,
        "jump_length": jump_length,
        "jump_n_sample": jump_n_sample,
        **sampler_arguments(settings),
    }
    white = read_picture(mask, OptionError, mode="L")[:, :, 0] > 127
    draw(settings, pictures, lambda sampler, read: sampler.inpaint(read, white, **arguments))
