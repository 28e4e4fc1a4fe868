"""pysdk devices: the CUDA devices of this machine."""

from __future__ import annotations

import click


@click.command("devices")
def command() -> None:
    """Say which CUDA devices this machine has, or why there are none."""
    from pysdk.machine.devices import describe_devices

    click.echo(describe_devices())
