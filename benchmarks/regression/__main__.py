"""`python -m benchmarks.regression A B`: is B slower than A, and are the images the same?"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import click

from benchmarks.environment import processor
from benchmarks.regression.ratio import FEWEST, Ratio
from benchmarks.regression.turns import LOAD, Process, SideError, Times, take_turns
from pysdk.machine.processors import default_threads

PATH = click.Path(exists=True, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def python_of(side: Path) -> Path:
    """Its executable: itself, or that of a checkout. Links stay: through them Python finds its environment."""
    python = side / ".venv" / "bin" / "python" if side.is_dir() else side
    if not python.is_file():
        raise click.UsageError(f"{side} has no .venv/bin/python; run `make` there, or name a Python executable")
    return python.absolute()


def plan_of(side: Path) -> Path:
    """The engine.plan of a checkout."""
    checkout = side if side.is_dir() else side.absolute().parent.parent.parent
    plan = checkout / "engine.plan"
    if not plan.is_file():
        raise click.UsageError(f"{side} has no engine.plan in its checkout; name one with --plan")
    return plan


class Batches(click.ParamType[list[int]]):
    name = "n,n,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        sizes = [int(part) if part.strip().isdigit() else 0 for part in str(value).split(",")]
        if min(sizes) < 1:
            self.fail(f"{value!r}, expected sizes from 1 on with commas between, as 1,16", param, ctx)
        return sizes


@click.command()
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option("--plan", type=FILE, help="Plan of both sides (default: the engine.plan of each side's checkout).")
@click.option("--plans", type=FILE, nargs=2, help="Plan of A and plan of B.")
@click.option(
    "--batch", "batches", type=Batches(), default="1,16", show_default=True, help="Images of a piece of work."
)
@click.option("--threads", type=click.IntRange(1), help="Of both (default: the processors this process may use).")
@click.option("--pairs", type=click.IntRange(FEWEST), default=30, show_default=True, help="Turns of each side.")
@click.option(
    "--steps", type=click.IntRange(2), default=20, show_default=True, help="Network steps of a piece of work."
)
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Also write every time here.")
def main(
    a: Path,
    b: Path,
    plan: Path | None,
    plans: tuple[Path, Path] | None,
    batches: list[int],
    threads: int | None,
    pairs: int,
    steps: int,
    out: Path | None,
) -> None:
    """Compare A with B, each a Python executable with a pysdk of its own or a checkout with .venv/bin/python."""
    if plan is not None and plans:
        raise click.UsageError("--plan and --plans exclude each other")
    files = plans or ((plan, plan) if plan is not None else (plan_of(a), plan_of(b)))
    count = threads or default_threads()
    work = {"threads": count, "batches": batches, "steps": steps}
    try:
        with ExitStack() as stack:
            sides = [
                stack.enter_context(Process(name, python_of(side), work | {"plan": str(file.absolute())}))
                for name, side, file in zip("AB", (a, b), files, strict=True)
            ]
            found = take_turns(sides, [LOAD, *batches], pairs)
            described = {side.name: side.description | {"peak_bytes": side.peak()} for side in sides}
    except SideError as error:
        raise click.ClickException(str(error)) from None
    result = {
        "cpu": processor(),
        "threads": count,
        "steps": steps,
        "sides": described,
        "work": [as_json(times) for times in found],
    }
    click.echo(as_text(result))
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")


def as_json(times: Times) -> dict[str, Any]:
    """The lines about one piece of work; batch 0 is loading."""
    hashes = {side: sorted(filter(None, found)) for side, found in times.hashes.items()}
    return {
        "batch": times.batch,
        "seconds": times.seconds,
        "ratio": Ratio.of(times.ratios()).as_dict(),
        "hashes": hashes,
        "equal": None if times.batch == LOAD else hashes["A"] == hashes["B"] and len(hashes["A"]) == 1,
    }


def as_text(result: dict[str, Any]) -> str:
    """For people, as Markdown."""
    lines = [f"{result['cpu']}, {result['threads']} threads, {result['steps']} steps"]
    for name, side in result["sides"].items():
        numerics = "no numerics version" if side["numerics"] is None else f"numerics version {side['numerics']}"
        about = f"pysdk {side['pysdk']}, {numerics}, Python {side['python']}, {side['engine']} engine"
        memory = "" if side["peak_bytes"] is None else f", peak memory {side['peak_bytes'] / 1e6:.0f} MB"
        lines.append(f"- {name}: {about}, kernels {side['kernels']}{memory}")
    lines += ["", "| work | A | B | B/A | quartiles | 95 % of the median | images |", "|---|---|---|---|---|---|---|"]
    for times in result["work"]:
        a, b = (f"{median(times['seconds'][name]) * 1e3:.2f} ms" for name in "AB")
        ratio = times["ratio"]
        spread = " | ".join("{:.3f} to {:.3f}".format(*ratio[name]) for name in ("quartiles", "interval"))
        name = "load" if times["batch"] == LOAD else f"batch {times['batch']}"
        same = {None: "", True: "equal", False: "DIFFERENT"}[times["equal"]]
        lines.append(f"| {name} | {a} | {b} | {ratio['median']:.3f} | {spread} | {same} |")
    lines.append("")
    for times in result["work"]:
        hashes = ("; ".join(f"{side} {' and '.join(found)}" for side, found in times["hashes"].items())).strip()
        if times["batch"] != LOAD:
            lines.append(f"images of batch {times['batch']}: {hashes}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
