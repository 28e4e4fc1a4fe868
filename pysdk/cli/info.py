"""pysdk info: what is in a plan, and which of its engines runs here."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pysdk.errors import PysdkError


@click.command("info")
@click.argument("plan", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verify", is_flag=True, help="Verify every checksum first.")
def command(plan: Path, as_json: bool, verify: bool) -> None:
    """Say what is in PLAN and which of its engines runs here."""
    from pysdk.engines import choice, registry
    from pysdk.engines.cost import costs
    from pysdk.machine.devices import open_device
    from pysdk.machine.memory import default_limit
    from pysdk.plan.reader import Plan

    def taken(opened: Plan, device: int | None) -> str:
        try:
            if device is not None:
                open_device(device)
            chosen, others = choice.choose(opened, device=device)
            others |= choice.passed_over(opened, chosen)
            return f"{chosen.kind}" + "".join(f"; {kind} not: {reason}" for kind, reason in others.items())
        except PysdkError as error:
            return f"none ({error})"

    with Plan.open(plan) as opened:
        if verify:
            opened.verify()
        running = {"runs_here": taken(opened, None)}
        if "cuda" in {registry.home(info.kind) for info in opened.manifest.engines}:
            running["runs_on_cuda"] = taken(opened, 0)
        for cost in costs(opened):
            running[f"{cost.engine if cost.runs == 'network' else cost.runs}_cost"] = cost.summary()
        if as_json:
            click.echo(json.dumps({**opened.describe(), **running, "max_memory": default_limit()}, indent=2))
        else:
            running["max_memory"] = f"{default_limit():,} bytes, unless --max-memory says otherwise"
            lines = (f"{name.replace('_', ' ')}: {text}" for name, text in running.items())
            click.echo("\n".join([opened.summary(), *lines]))
