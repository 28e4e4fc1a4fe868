"""pysdk edit | inpaint | interpolate: the uses that take picture files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pysdk.cli.texts import (
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
    from pysdk import Sampler

_Command = TypeVar("_Command", bound=Callable[..., Any])
PICTURE = click.Path(path_type=Path)

_DRAWING = (
    click.argument("plan", type=click.Path(path_type=Path)),
    click.option("--seed", default=0, show_default=True, help="Gallery whose noise is used."),
    click.option("--start", default=0, show_default=True, help="Index of the first image in the gallery."),
    click.option("--steps", help="Number of steps, or a respacing rule (default: the plan's, or the use's)."),
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


def _drawing(command: _Command) -> _Command:
    """The argument and options that all of them have."""
    for option in reversed(_DRAWING):
        command = option(command)
    return command


def _arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Those of `Sampler`'s methods; what was not given is left out."""
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


def _draw(settings: dict[str, Any], paths: tuple[Path, ...], use: Callable[[Sampler, list[Any]], Any]) -> None:
    """Read the pictures, run the use and save what comes out."""
    from pysdk.images import check_output
    from pysdk.sampler import Sampler

    out = settings["out"]
    check_output(out)  # before anything is drawn
    machine = {name: settings[name] for name in ("threads", "max_memory", "trust")}
    with Sampler(settings["plan"], **machine) as sampler:
        channels, *_ = sampler.plan.manifest.model.shape
        if channels not in (1, 3):
            raise OptionError(f"pictures have 1 or 3 channels and this model {channels}; use Sampler with arrays")
        pictures = [read_picture(path, OptionError, mode="L" if channels == 1 else "RGB") for path in paths]
        use(sampler, pictures).save(out)
    click.echo(f"wrote {out}")


@click.command()
@_drawing
@click.argument("pictures", nargs=-1, required=True, type=PICTURE)
@click.option("--solver", help="ddpm, ddim, ... (default: the plan's).")
@click.option("--strength", type=float, help="Share of the steps that are run, above 0 to 1 (default: 0.5).")
@click.option("--timestep", type=int, help="The timestep to start from instead.")
def edit(
    pictures: tuple[Path, ...], solver: str | None, strength: float | None, timestep: int | None, **settings: Any
) -> None:
    """Redraw PICTURES with PLAN from a noised start (SDEdit)."""
    arguments = {"solver": solver, **_arguments(settings)}
    _draw(
        settings,
        pictures,
        lambda sampler, read: sampler.image_to_image(read, strength=strength, timestep=timestep, **arguments),
    )


@click.command()
@_drawing
@click.argument("pictures", nargs=-1, required=True, type=PICTURE)
@click.option("--mask", required=True, type=PICTURE, help="Picture of the same size: white where to draw.")
@click.option("--solver", help="ddpm or ddim (default: the plan's).")
@click.option("--jump-length", default=10, show_default=True, help="Steps taken back together.")
@click.option("--jump-n-sample", default=10, show_default=True, help="How often each stretch is drawn; 1: no jumps.")
def inpaint(
    pictures: tuple[Path, ...], mask: Path, solver: str | None, jump_length: int, jump_n_sample: int, **settings: Any
) -> None:
    """Draw the masked part of PICTURES anew with PLAN (RePaint)."""
    arguments = {"solver": solver, "jump_length": jump_length, "jump_n_sample": jump_n_sample, **_arguments(settings)}
    white = read_picture(mask, OptionError, mode="L")[:, :, 0] > 127
    _draw(settings, pictures, lambda sampler, read: sampler.inpaint(read, white, **arguments))


@click.command()
@_drawing
@click.argument("first", type=PICTURE)
@click.argument("second", type=PICTURE)
@click.option("-n", default=9, show_default=True, help="Number of images.")
@click.option("--timestep", type=int, help="Where they meet (default: on the sphere of latents).")
def interpolate(first: Path, second: Path, n: int, timestep: int | None, **settings: Any) -> None:
    """Draw the way from FIRST to SECOND with PLAN."""
    arguments = _arguments(settings)
    _draw(
        settings,
        (first, second),
        lambda sampler, ends: sampler.interpolate(ends[0], ends[1], n, timestep=timestep, **arguments),
    )
