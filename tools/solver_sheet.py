"""Every solver at a few numbers of network calls, as a sheet of pictures and a table of Frechet distances.

python tools/solver_sheet.py engine.plan --images 5000

Images already drawn are kept in the work folder, so a run that was stopped goes on where it was, and one with more
images draws only those that are missing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pysdk import Sampler
from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError
from pysdk.evaluation.features import OnnxFeatures
from pysdk.evaluation.frechet import Moments, frechet_distance
from pysdk.evaluation.measure import measure
from pysdk.evaluation.sources import open_source, plan_source
from pysdk.files.atomic import atomic_file
from pysdk.request.solver_table import resolve_table
from pysdk.solvers import LEVEL_OPTIONS, SOLVERS, solver_options

matplotlib.use("Agg")
from matplotlib import pyplot

MORE: dict[str, list[dict[str, Any]]] = {
    "ddim": [{"eta": 0.5}, {"eta": 1.0}],
    "ddpm": [{"variance": "large"}],
    "heun": [{"sigmas": "karras", "s_churn": 5.0, "s_tmax": 50.0}],
    "annealed_langevin": [{"corrector_steps": 1}],
}
"""Options worth a row of their own, beside the solver's defaults; a solver that is not here has its default row."""

ENDS_LOW = ("euler_maruyama", "ode_euler", "ode_heun")
"""Whose last timestep should be low."""


@dataclass(frozen=True)
class Cell:
    """A solver with options at a number of steps.

    Attributes:
        steps: what the solver is given, the most that takes no more than the calls asked for.
        calls: network calls that takes.
    """

    solver: str
    options: dict[str, Any]
    steps: int
    calls: int


@dataclass(frozen=True)
class Result:
    """The first images of a cell, uint8 (n, H, W, C), and the distance of all to the real ones."""

    images: NDArray[np.uint8]
    distance: float


def rows(sampler: Sampler) -> dict[str, tuple[str, dict[str, Any]]]:
    """Title to (solver, options): every solver that draws and can run this network.

    Each is there once spread over timesteps and, if it is in sigma, once by Karras' rule, then with those of `MORE`.
    """
    found = {}
    for name in SOLVERS:
        spread: list[dict[str, Any]] = []
        if isinstance(sampler.schedule, Schedule):
            spread = [{"spacing": "linspace" if name in ENDS_LOW else "trailing"}]
        if set(LEVEL_OPTIONS) <= set(solver_options(name)):
            spread.append({"sigmas": "karras"})
        for options in [
            *spread,
            *({**spread[0], **more} if "sigmas" not in more else more for more in MORE.get(name, [])),
        ]:
            try:
                table = resolve_table(sampler.plan.manifest, sampler.schedule, name, 3, options)
            except OptionError:  # needs timesteps, or whole ones
                continue
            if table.init_scale != 0:
                told = [f"{key} {value}" for key, value in options.items() if key != "spacing"]
                found[", ".join([name, *told])] = (name, options)
    return found


def cell(sampler: Sampler, solver: str, options: dict[str, Any], calls: int) -> Cell | None:
    """The cell with the most steps of at most `calls` calls; None if one step takes more, or so few cannot be run."""
    most = min(calls, len(sampler.schedule)) if isinstance(sampler.schedule, Schedule) else calls
    for steps in range(most, 0, -1):
        try:
            table = resolve_table(sampler.plan.manifest, sampler.schedule, solver, steps, options)
        except OptionError:  # no level between s_tmin and s_tmax, for one
            continue
        if len(table) <= calls:
            return Cell(solver, options, steps, len(table))
    return None


def draw(
    sampler: Sampler, chosen: Cell, count: int, seed: int, work: Path, shown: int, real: Moments, network: OnnxFeatures
) -> Result:
    """Draw images 0 .. count - 1 of a cell, classes in turn, or read what is kept of them, and measure them."""
    settings = {"solver": chosen.solver, "steps": chosen.steps, "guidance_scale": 1.0, **chosen.options}
    digest = hashlib.sha256(sampler.plan.path.read_bytes())
    digest.update(json.dumps([settings, seed]).encode())
    folder = work / digest.hexdigest()[:12]
    source = plan_source(sampler, count, seed, work=folder, **settings)
    measured = measure(source, network, keep=0, progress=False)
    first, _ = next(iter(source.batches(shown)))
    return Result(first[:shown], frechet_distance(measured.moments.moments(), real))


def picture(results: dict[str, list[Result | None]], calls: list[int], path: Path) -> None:
    """One line a solver, one column a number of calls, the first images of each and the distance."""
    figure, axes = pyplot.subplots(
        len(results), len(calls), figsize=(2.4 * len(calls) + 2.2, 0.75 * len(results) + 0.4), squeeze=False
    )
    for line, (title, cells) in zip(axes, results.items(), strict=True):
        line[0].set_ylabel(title.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=7)
        for axis, result in zip(line, cells, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if result is not None:
                strip = np.concatenate(result.images, axis=1)
                axis.imshow(strip if strip.shape[2] == 3 else strip[:, :, 0], cmap="gray", vmin=0, vmax=255)
                axis.set_title(f"{result.distance:.3g}", fontsize=7, pad=2)
    for axis, count in zip(axes[0], calls, strict=True):
        axis.annotate(f"{count} calls", (0.5, 1.45), xycoords="axes fraction", ha="center", fontsize=8)
    figure.subplots_adjust(left=0.2, right=0.99, top=1 - 0.5 / (0.75 * len(results) + 0.4), bottom=0.01, hspace=0.35)
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)
    pyplot.close(figure)


def table(results: dict[str, list[Result | None]], calls: list[int], model: str, count: int, shown: str) -> str:
    """The page: what was drawn, the picture, the distances; the best of each column is bold."""
    best = [
        min((cells[column].distance for cells in results.values() if cells[column]), default=0.0)  # type: ignore[union-attr]
        for column in range(len(calls))
    ]
    lines = [
        "# Every solver at a few network calls",
        "",
        f"The model {model}, {count:,} images a cell of one seed, classes in turn, no guidance. The number is the",
        "Frechet distance to the real test images in the features of the shipped classifier; less is better. A solver",
        "with two calls a step takes half the steps. Options are the solver's own but for `spacing`, where `sigmas` is",
        "not named: `trailing`, of the VP SDE and its ODE `linspace`. Made by `python tools/solver_sheet.py PLAN`.",
        "",
        f"![every solver at {', '.join(map(str, calls))} calls]({shown})",
        "",
        "| solver | " + " | ".join(f"{count} calls" for count in calls) + " |",
        "|---|" + "---|" * len(calls),
    ]
    for title, cells in results.items():
        numbers = [
            "-" if cell is None else f"**{cell.distance:.3g}**" if cell.distance == low else f"{cell.distance:.3g}"
            for cell, low in zip(cells, best, strict=True)
        ]
        lines.append(f"| {title} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("plan", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--images", type=click.IntRange(2), default=2000, show_default=True, help="Images of each cell.")
@click.option("--calls", type=click.IntRange(1), multiple=True, default=(5, 10, 20, 50), show_default=True)
@click.option("--only", multiple=True, type=click.Choice(sorted(SOLVERS)), help="These solvers only.")
@click.option("--per-cell", type=click.IntRange(1), default=6, show_default=True, help="Images shown of each cell.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--data", default="fashion-mnist", show_default=True, help="The real images.")
@click.option("--classifier", type=click.Path(path_type=Path), default="models/fashion-mnist-classifier")
@click.option("--work", type=click.Path(path_type=Path), help="Folder of the images. Default: PLAN.sheet.")
@click.option("--picture", "shown", type=click.Path(path_type=Path), default="docs/pictures/solvers.png")
@click.option("--page", type=click.Path(path_type=Path), default="docs/solver-sheet.md", show_default=True)
def main(
    plan: Path,
    images: int,
    calls: tuple[int, ...],
    only: tuple[str, ...],
    per_cell: int,
    seed: int,
    data: str,
    classifier: Path,
    work: Path | None,
    shown: Path,
    page: Path,
) -> None:
    """Draw with every solver of PLAN's network; write the picture and the page."""
    network = OnnxFeatures(classifier)
    real = measure(open_source(data, "test"), network, keep=0, progress=False).moments.moments()
    folder = work or plan.with_suffix(".plan.sheet")
    results: dict[str, list[Result | None]] = {}
    with Sampler(plan) as sampler:
        name = sampler.plan.manifest.model.name
        chosen = {title: row for title, row in rows(sampler).items() if not only or row[0] in only}
        with tqdm(total=len(chosen) * len(calls), unit="cell", dynamic_ncols=True) as bar:
            for title, (solver, options) in chosen.items():
                results[title] = []
                for count in calls:
                    bar.set_description(f"{title}, {count} calls")
                    found = cell(sampler, solver, options, count)
                    drawn = found and draw(sampler, found, images, seed, folder, per_cell, real, network)
                    results[title].append(drawn or None)
                    bar.update()
    for path in (shown, page):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture(results, list(calls), shown)
    link = shown.name if shown.parent == page.parent else Path(*shown.parts[len(page.parent.parts) :]).as_posix()
    with atomic_file(page) as file:
        file.write(table(results, list(calls), name, images, link).encode())


if __name__ == "__main__":
    main()
