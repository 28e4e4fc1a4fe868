"""Shared by edit, inpaint and interpolate: options, and picture files as arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pysdk.cli.parsing import (
    SET_HELP,
    deadline_option,
    max_memory_option,
    numbers,
    solver_options,
    steps_of,
    trust_option,
)
from pysdk.errors import OptionError
from pysdk.files.pictures import read_picture

if TYPE_CHECKING:
    from pysdk import Images, Sampler

_Command = TypeVar("_Command", bound=Callable[..., Any])
PICTURE = click.Path(path_type=Path)

_DRAWING = (
    click.argument("plan", type=click.Path(path_type=Path)),
    click.option("--seed", default=0, show_default=True, help="Gallery whose noise is used."),
    click.option("--start", default=0, show_default=True, help="Index of the first image in the gallery."),
    click.option("--steps", help="Number of steps, or a respacing rule (default: the plan's, or the task's)."),
    click.option("--labels", help="Class, or one per picture: 3 or 0,1,2 (default: no class)."),
    click.option("--guidance-scale", help="Classifier-free guidance scale, or one per picture."),
    click.option("--guidance-interval", help="Lowest and highest timestep with guidance: 100,600 (default: all)."),
    click.option("--classifier-scale", help="Classifier guidance scale, or one per picture."),
    click.option("-s", "--set", "pairs", multiple=True, metavar="NAME=VALUE", help=SET_HELP),
    deadline_option,
    click.option("--threads", type=int, help="Processors to use (default: all)."),
    max_memory_option,
    trust_option,
    click.option(
        "-o", "--out", default="out.png", show_default=True, help="A grid, an .npz or a folder, as in sample."
    ),
)


def drawing_options(command: _Command) -> _Command:
    """Adds the argument and options that all three have."""
    for option in reversed(_DRAWING):
        command = option(command)
    return command


def sampler_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments for `Sampler`'s methods, without those that were not given."""
    per_image = ("labels", "guidance_scale", "guidance_interval", "classifier_scale")
    given = {
        "seed": settings["seed"],
        "deadline": settings["deadline"],
        "start": settings["start"],
        "steps": steps_of(settings["steps"], None),
        **{name: numbers(name, settings[name]) for name in per_image},
        **solver_options(settings["pairs"]),
    }
    return {name: value for name, value in given.items() if value is not None}


def draw(settings: dict[str, Any], paths: tuple[Path, ...], task: Callable[[Sampler, list[Any]], Images]) -> None:
    """Read the pictures, run the task and save what comes out."""
    from pysdk.images import check_output
    from pysdk.sampler import Sampler

    out = settings["out"]
    check_output(out)  # before anything is drawn
    machine = {name: settings[name] for name in ("threads", "max_memory", "trust")}
    with Sampler(settings["plan"], **machine) as sampler:
        channels, *_ = sampler.plan.manifest.model.shape
        if channels not in (1, 3):
            raise OptionError(f"pictures have 1 or 3 channels, this model has {channels}; use Sampler with arrays")
        pictures = [read_picture(path, OptionError, mode="L" if channels == 1 else "RGB") for path in paths]
        task(sampler, pictures).save(out)
    click.echo(f"wrote {out}")
