"""Where a step of the native engine goes, beside what the machine could do: `python -m benchmarks.profile PLAN`.

Per kind of operation and size of map, as a Markdown table: its time; the floating-point operations that its tactic
needs, two per multiplication that Winograd leaves; the bytes of its tensors and weights, each moved once; and what
share of the time those would take at the limits measured in the same run (`benchmarks.limits`). Transforms, sums and
exponentials count as nothing: what they cost is missing from the shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from statistics import median

import click
import numpy as np

from benchmarks.interleave import seconds_of
from benchmarks.limits import Limits
from benchmarks.networks import Inputs, NativeCall
from pysdk import Plan
from pysdk.export.engines.native.program import (
    AnyOp,
    Attention,
    Conv,
    Input,
    Linear,
    Output,
    Program,
    reads,
    weights_of,
    writes,
)
from pysdk.export.engines.native.weights import unpack
from pysdk.machine.processors import default_threads

TILES = {"winograd2": 2, "winograd4": 4}
FLOAT = 4


@dataclass
class Row:
    """Operations of one kind: how many, and what one step spends on all of them."""

    ops: int = 0
    seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0

    def add(self, seconds: float, flops: float, moved: float) -> None:
        """One operation more."""
        self.ops += 1
        self.seconds += seconds
        self.flops += flops
        self.bytes += moved


@dataclass
class Profile:
    """Rows by kind, the slowest first, and the time of whole steps without the clock between operations."""

    limits: Limits
    step: float
    rows: dict[str, Row] = field(default_factory=dict)

    def total(self) -> Row:
        """All rows."""
        rows = self.rows.values()
        return Row(*(sum(getattr(row, name) for row in rows) for name in ("ops", "seconds", "flops", "bytes")))


def kind(program: Program, op: AnyOp) -> str:
    """Operations of one kind share a row."""
    name = str(op.__struct_config__.tag)
    out = writes(op)
    size = program.tensors[op.x if isinstance(op, Output) else out if out is not None else 0]
    if isinstance(op, Conv):
        height, width = program.shape(op.weight)[2:]
        name = f"{name} {height}x{width} {op.tactic}"
    return name if size.pixels == 1 else f"{name}, {size.height}x{size.width}"


def flops(program: Program, op: AnyOp, batch: int) -> float:
    """Two for each multiplication of its matrix products."""
    if isinstance(op, Attention):
        tokens = program.tensors[op.out].pixels
        return 2.0 * batch * 2 * tokens * tokens * op.heads * op.head_channels
    if isinstance(op, Linear):
        return 2.0 * prod(program.shape(op.weight)) * (1 if program.tensors[op.out].shared else batch)
    if not isinstance(op, Conv):
        return 0.0
    out, shape = program.tensors[op.out], program.shape(op.weight)
    if op.tactic == "direct":
        return 2.0 * batch * out.pixels * prod(shape)
    side = TILES[op.tactic]
    tiles = ceil(out.height / side) * ceil(out.width / side)
    return 2.0 * batch * tiles * (side + 2) ** 2 * shape[0] * shape[1]


def moved(program: Program, op: AnyOp, batch: int) -> float:
    """Bytes of the tensors it reads and writes and of its weights as the file has them, each once."""
    named = [*set(reads(op)), *([] if (out := writes(op)) is None else [out])]
    tensors = [program.tensors[index] for index in named]
    floats = sum(tensor.channels * tensor.pixels * (1 if tensor.shared else batch) for tensor in tensors)
    if isinstance(op, Input | Output):
        floats *= 2  # the other side is the chain's buffer
    return FLOAT * float(floats + sum(prod(program.shape(weight)) for weight in weights_of(op).values()))


def measure(plan: Path, batch: int, threads: int, repeats: int) -> Profile:
    """Median times over `repeats` steps; the limits are the higher of before and after."""
    with Plan.open(plan) as opened:
        info = next(info for info in opened.manifest.engines if info.kind == "native")
        program = unpack(*(bytes(opened.member(name)) for name in (info.member, *info.data)))
        model = opened.manifest.model
    rng = np.random.default_rng(0)
    labels = None if model.num_classes is None else np.arange(batch) % model.num_classes
    x = rng.standard_normal((batch, *model.shape), np.float32)
    call = NativeCall(plan, Inputs(x, np.array([500], np.float32), labels), threads)
    limits = Limits.measure(threads)
    call()
    runs, steps = [], []
    for _ in range(repeats):
        runs.append(call.network.profile())
        steps.append(seconds_of(call, pause=0))
    result = Profile(limits.best(Limits.measure(threads)), median(steps))
    for op, times in zip(program.ops, zip(*runs, strict=True), strict=True):
        row = result.rows.setdefault(kind(program, op), Row())
        row.add(median(times), flops(program, op, batch), moved(program, op, batch))
    result.rows = dict(sorted(result.rows.items(), key=lambda item: -item[1].seconds))
    return result


def render(profile: Profile) -> str:
    """The table, with the limits under it."""
    limits, total = profile.limits, profile.total()
    lines = [
        "| operation | count | ms | of the time | GFLOP | of the FLOP limit | MB | of the byte limit |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in (*profile.rows.items(), ("all", total)):
        lines.append(
            f"| {name} | {row.ops} | {row.seconds * 1e3:.3f} | {row.seconds / total.seconds:.1%} "
            f"| {row.flops / 1e9:.3f} | {row.flops / limits.flops / row.seconds:.0%} "
            f"| {row.bytes / 1e6:.2f} | {row.bytes / limits.bytes / row.seconds:.0%} |"
        )
    floor = sum(max(row.flops / limits.flops, row.bytes / limits.bytes) for row in profile.rows.values())
    return "\n".join(lines) + (
        f"\n\nLimits: {limits}. A step takes {profile.step * 1e3:.2f} ms; each row at the nearer of its limits would "
        f"take {floor * 1e3:.2f} ms, {floor / profile.step:.0%} of that.\n"
    )


@click.command()
@click.argument("plan", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Images of a step.")
@click.option("--threads", type=click.IntRange(1), default=default_threads(), show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="Steps that are timed.")
def main(plan: Path, batch: int, threads: int, repeats: int) -> None:
    """Where a step of PLAN's native engine goes."""
    click.echo(f"{plan.name}, batch {batch}, {threads} thread{'s' * (threads > 1)}, median of {repeats} steps\n")
    click.echo(render(measure(plan, batch, threads, repeats)))


if __name__ == "__main__":
    main()
