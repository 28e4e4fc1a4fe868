"""The command line; `pysdk --help` lists the commands."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from pysdk.cli import early_exit
from pysdk.cli.texts import (
    SET_HELP,
    deadline_option,
    max_memory_option,
    numbers,
    solver_options,
    steps_of,
    trust_option,
)
from pysdk.distribution import DISTRIBUTION
from pysdk.errors import OptionError, PysdkError
from pysdk.runtime import interrupts

# commands whose modules are heavy, or need an extra, are imported when they are called
_LAZY = {
    "add-classifier": ("pysdk.cli.add_classifier", "Add a classifier to a plan, for classifier guidance."),
    "build": ("pysdk.export.build_engine", "Build an engine.plan from a checkpoint."),
    "edit": ("pysdk.cli.pictures:edit", "Redraw pictures from a noised start."),
    "evaluate": ("pysdk.cli.evaluate", "Measure images against a reference: Frechet and kernel distance, ..."),
    "inpaint": ("pysdk.cli.pictures:inpaint", "Draw a part of pictures anew."),
    "interpolate": ("pysdk.cli.pictures:interpolate", "Draw the way from one picture to another."),
    "likelihood": ("pysdk.cli.likelihood", "The variational bound of a plan on images, in bits per dimension."),
    "report": ("pysdk.cli.report", "Plotted reports on a plan."),
    "train": ("pysdk.cli.train", "Train a U-Net on a data set."),
}


class _Commands(click.Group):
    """A group that imports some of its commands on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        return click.Command(cmd_name, help=_LAZY[cmd_name][1])  # what a list shows

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found, command, rest = super().resolve_command(ctx, args)
        if found in _LAZY and not ctx.resilient_parsing:
            module, _, name = _LAZY[found][0].partition(":")
            command = getattr(importlib.import_module(module), name or "command")
        return found, command, rest


@click.group(cls=_Commands)
@click.version_option(package_name=DISTRIBUTION)
def pysdk() -> None:
    """Compiled inference of diffusion models."""


def run(command: click.Command) -> None:
    """Run a command; our own errors, and those of the system, become one line on stderr and exit code 1."""
    early_exit.as_usual()
    try:
        with interrupts.noted_interrupts() as noted:
            try:
                command.main(standalone_mode=False)
                sys.stdout.flush()  # now, while an error can be told
            except Exception:
                noted.renew()  # not a failure, whatever foreign code made of it
                raise
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        interrupts.ending()
        click.echo(early_exit.MESSAGE, err=True)
        _drop_output()
        sys.exit(early_exit.CODE)
    except (PysdkError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        _drop_output()
        sys.exit(1)
    except MemoryError as error:
        click.echo(f"error: there is not enough memory for this ({error}); ask for fewer images at once", err=True)
        sys.exit(1)


def _drop_output() -> None:
    """Forget what stdout holds and cannot write: Python would try again at its end, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main() -> None:
    """Run `pysdk`; its entry point is `pysdk.cli.start.main`."""
    run(pysdk)


@pysdk.command()
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
def sample(
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


@pysdk.command()
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verify", is_flag=True, help="Verify every checksum first.")
def info(plan: Path, as_json: bool, verify: bool) -> None:
    """Say what is in PLAN and which of its engines runs here."""
    from pysdk import engines
    from pysdk.plan.cost import costs
    from pysdk.plan.reader import Plan
    from pysdk.runtime.devices import open_device
    from pysdk.runtime.memory import default_limit

    def taken(opened: Plan, device: int | None) -> str:
        try:
            if device is not None:
                open_device(device)
            chosen, others = engines.choose(opened, device=device)
            others |= engines.second(opened, chosen)
            return f"{chosen.kind}" + "".join(f"; {kind} not: {reason}" for kind, reason in others.items())
        except PysdkError as error:
            return f"none ({error})"

    with Plan.open(plan) as opened:
        if verify:
            opened.verify()
        running = {"runs_here": taken(opened, None)}
        if "cuda" in {engines.home(info.kind) for info in opened.manifest.engines}:
            running["runs_on_cuda"] = taken(opened, 0)
        for cost in costs(opened):
            running[f"{cost.engine if cost.runs == 'network' else cost.runs}_cost"] = cost.summary()
        if as_json:
            click.echo(json.dumps({**opened.describe(), **running, "max_memory": default_limit()}, indent=2))
        else:
            running["max_memory"] = f"{default_limit():,} bytes, unless --max-memory says otherwise"
            lines = (f"{name.replace('_', ' ')}: {text}" for name, text in running.items())
            click.echo("\n".join([opened.summary(), *lines]))


@pysdk.command()
def devices() -> None:
    """Say which CUDA devices this machine has, or why there are none."""
    from pysdk.runtime.devices import describe_devices

    click.echo(describe_devices())
