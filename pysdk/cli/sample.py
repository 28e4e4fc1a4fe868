"""pysdk sample: draws images from a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


@click.command("sample")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("-n", default=64, show_default=True, help="Number of images.")
@click.option("--seed", default=0, show_default=True, help="Gallery to draw from.")
@click.option("--start", default=0, show_default=True, help="Index of the first image in the gallery.")
@click.option("--steps", help="Number of steps, or a respacing rule: ddim50, or 10,10,5 (default: the plan's).")
@click.option("--timesteps", help="The timesteps to visit instead, descending: 999,749,499,249,0.")
@click.option("--solver", help="ddpm, ddim, ... (default: the plan's).")
@click.option("--labels", help="Class, or one per image: 3 or 0,1,2 (default: one class after the other).")
@click.option("--guidance-scale", help="Classifier-free guidance scale, or one per image (default: the plan's).")
@click.option("--guidance-interval", help="Lowest and highest timestep with guidance: 100,600 (default: all).")
@click.option("--classifier-scale", help="Classifier guidance scale, or one per image (default: 0).")
@click.option("-s", "--set", "pairs", multiple=True, metavar="NAME=VALUE", help=SET_HELP)
@click.option("--engine", help="Engine to use (default: the first of the plan that runs here).")
@deadline_option
@click.option("--threads", type=int, help="Processors to use (default: all).")
@click.option("--batch-size", type=int, help="Images per network call (default: the plan's).")
@max_memory_option
@trust_option
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:1; see `pysdk devices`.")
@click.option("--frames", default=50, show_default=True, type=click.IntRange(min=1), help="Frames of a .gif.")
@click.option("--columns", type=click.IntRange(min=1), help="Images per row of a grid.")
@click.option(
    "-o",
    "--out",
    default="grid.png",
    show_default=True,
    help="A .png, .jpg or .webp grid, a .gif of the reverse process, an .npz, or a folder for PNGs.",
)
def command(
    plan: Path,
    n: int,
    seed: int,
    start: int,
    steps: str | None,
    timesteps: str | None,
    solver: str | None,
    labels: str | None,
    guidance_scale: str | None,
    guidance_interval: str | None,
    classifier_scale: str | None,
    pairs: tuple[str, ...],
    engine: str | None,
    deadline: float | None,
    threads: int | None,
    batch_size: int | None,
    max_memory: int | None,
    trust: bool,
    device: str,
    frames: int,
    columns: int | None,
    out: str,
) -> None:
    """Draw images from PLAN and write them to a file or folder."""
    from pysdk.images import check_channels, check_output, save_gif
    from pysdk.sampler import Sampler

    # before anything is drawn
    suffix = check_output(out, animation=True)
    if columns is not None and suffix in ("", ".npz"):
        raise OptionError(f"--columns is for a grid, and {out!r} holds none; leave it out")

    machine: dict[str, Any] = {"threads": threads, "batch_size": batch_size, "max_memory": max_memory, "trust": trust}
    with Sampler(plan, engine=engine, device=device, **machine) as sampler:
        if suffix != ".npz":
            check_channels(sampler.plan.manifest.model.shape[0])
        request: dict[str, Any] = {
            "seed": seed,
            "deadline": deadline,
            "start": start,
            "steps": steps_of(steps, timesteps),
            "solver": solver,
            "labels": numbers("labels", labels),
            "guidance_scale": numbers("guidance_scale", guidance_scale),
            "guidance_interval": numbers("guidance_interval", guidance_interval),
            "classifier_scale": numbers("classifier_scale", classifier_scale),
            **solver_options(pairs),
        }
        layout = {} if columns is None else {"columns": columns}
        if suffix == ".gif":
            # frames spread over the chain; the last is always among them, and no other is kept
            save_gif(
                (
                    preview.x
                    for preview in sampler.stream(n, **request)
                    if (preview.total - preview.step) % -(-preview.total // frames) == 0
                ),
                out,
                **layout,
            )
        else:
            sampler.sample(n, **request).save(out, **layout)
    click.echo(f"wrote {out}")
