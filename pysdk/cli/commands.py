"""The command line; `pysdk --help` lists the commands."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress

import click

from pysdk.distribution import DISTRIBUTION
from pysdk.errors import PysdkError
from pysdk.machine import early_exit, interrupts

# a command's module and what the list says of it; the module, often heavy, is imported when the command is called
_COMMANDS = {
    "add-classifier": ("pysdk.cli.add_classifier", "Add a classifier to a plan, for classifier guidance."),
    "build": ("pysdk.export.build_engine", "Build an engine.plan from a checkpoint."),
    "compression": ("pysdk.cli.compression", "Plot rate and distortion of images sent with a plan."),
    "devices": ("pysdk.cli.devices", "Say which CUDA devices this machine has, or why there are none."),
    "edit": ("pysdk.cli.pictures.edit", "Redraw pictures from a noised start."),
    "evaluate": ("pysdk.cli.evaluate", "Measure images against a reference: Frechet and kernel distance, ..."),
    "info": ("pysdk.cli.info", "Say what is in a plan and which of its engines runs here."),
    "inpaint": ("pysdk.cli.pictures.inpaint", "Draw a part of pictures anew."),
    "interpolate": ("pysdk.cli.pictures.interpolate", "Draw the way from one picture to another."),
    "likelihood": ("pysdk.cli.likelihood", "The variational bound of a plan on images, in bits per dimension."),
    "sample": ("pysdk.cli.sample", "Draw images from a plan and write them to a file or folder."),
    "train": ("pysdk.cli.train", "Train a U-Net on a data set."),
}


class _Commands(click.Group):
    """A group that imports a command on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return click.Command(cmd_name, help=_COMMANDS[cmd_name][1]) if cmd_name in _COMMANDS else None  # for the list

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found, command, rest = super().resolve_command(ctx, args)
        if found in _COMMANDS and not ctx.resilient_parsing:
            command = importlib.import_module(_COMMANDS[found][0]).command
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
    finally:
        interrupts.ending()  # Python's own end takes a second after torch, and a signal would change the exit code


def _drop_output() -> None:
    """Forget what stdout cannot write: Python would try again at its end, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main() -> None:
    """Run `pysdk`; its entry point is `pysdk.cli.__main__.main`."""
    run(pysdk)
