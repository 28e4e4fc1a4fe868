"""The pictures of a model card: the loss curve of a run and a sheet of samples per class.

python tools/model_pictures.py models/fashion-mnist engine.plan
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import matplotlib
import numpy as np

from pysdk import Sampler

matplotlib.use("Agg")
from matplotlib import pyplot


def loss_curve(history: list[tuple[int, float]], path: Path) -> None:
    """Loss over steps, both axes logarithmic."""
    steps, losses = np.array(history).T
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    axes.loglog(steps, losses, linewidth=1)
    axes.set(xlabel="step", ylabel="training loss (mean of 50 steps)")
    axes.grid(which="both", alpha=0.3)
    figure.savefig(path, dpi=110)


def sheet(sampler: Sampler, path: Path, per_class: int) -> None:
    """One row per class, the images of a gallery in order."""
    classes = sampler.plan.manifest.model.num_classes
    labels = None if classes is None else np.repeat(np.arange(classes), per_class)
    sampler.sample((classes or 10) * per_class, labels=labels).save(path, columns=per_class)


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.argument("plan", type=click.Path(path_type=Path, exists=True))
@click.option("--per-class", default=12, show_default=True, help="Samples of each class.")
def main(model: Path, plan: Path, per_class: int) -> None:
    """Write loss.png (from training.json) and samples.png into the folder MODEL, drawing from PLAN."""
    loss_curve(json.loads((model / "training.json").read_text())["history"], model / "loss.png")
    with Sampler(plan) as sampler:
        sheet(sampler, model / "samples.png", per_class)


if __name__ == "__main__":
    main()
