"""Progressive lossy compression by a plan (DDPM, section 4.3 and figure 5): rate and distortion at every step.

A receiver who has x_t, at a cost of L_T and every L_s sent before, guesses the image as the denoised estimate of x_t.
The rate is that cost in bits per dimension, the distortion the root mean squared error of the guess on pixels in
[0, 255].

    rate(t) = L_T + sum over s > t of L_s         distortion(t) = sqrt(mean |x_0 - D(x_t)|^2)

After the last step the image itself is sent (L_0): the rate is the whole bound, the distortion 0.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pysdk.diffusion.schedule import Float64Array
from pysdk.diffusion.timesteps import Int64Array
from pysdk.errors import MissingDependencyError, OptionError
from pysdk.files.atomic import atomic_file, check_target
from pysdk.likelihood import Likelihood

SUFFIXES = (".csv", ".npz", ".png")


@dataclass(frozen=True, eq=False)
class Curve:
    """Means over images; K steps and the end.

    Attributes:
        timesteps: those of x_t, descending, and -1 for the image itself, int64 (K + 1,).
        rate: bits per dimension sent until then, rising, float64 (K + 1,).
        distortion: root mean squared error on [0, 255], float64 (K + 1,), the last 0.
        images: how many.
    """

    timesteps: Int64Array
    rate: Float64Array
    distortion: Float64Array
    images: int


def compression_curve(likelihood: Likelihood) -> Curve:
    """The curve of a bound with all its terms.

    Raises:
        OptionError: only a subset of them was evaluated.
    """
    if (likelihood.weights != 1).any():
        raise OptionError(
            f"the bound has {len(likelihood.timesteps)} of its {round(likelihood.weights.sum())} terms, and every step "
            "of the curve needs its own; leave out `terms` (fewer `steps` make it shorter)"
        )
    sent = np.append(likelihood.prior.mean(), likelihood.terms.mean(axis=0))
    return Curve(
        timesteps=np.append(likelihood.timesteps, -1),
        rate=np.cumsum(sent),
        distortion=np.append(np.sqrt(likelihood.squared_error.mean(axis=0)), 0.0),
        images=len(likelihood.prior),
    )


def check_path(path: str | os.PathLike[str]) -> str:
    """The suffix of a path a curve can be saved at.

    Raises:
        OptionError: there is no such form.
        MissingDependencyError: a plot needs matplotlib.
        OutputError: it could not be written, see `pysdk.files.atomic.check_target`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"a curve cannot be saved as {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if suffix == ".png":
        _require_matplotlib()
    check_target(path)
    return suffix


def save_curve(curve: Curve, path: str | os.PathLike[str], title: str = "") -> None:
    """Write a curve, whole or not at all: .csv and .npz hold timesteps, rate and distortion, .png is the plot.

    Raises:
        OptionError: another suffix.
        MissingDependencyError: a plot needs matplotlib.
        OutputError: it cannot be written.
    """
    suffix = check_path(path)
    if suffix == ".png":
        _plot(curve, path, title)
        return
    with atomic_file(path) as file:
        if suffix == ".npz":
            np.savez(file, timesteps=curve.timesteps, rate=curve.rate, distortion=curve.distortion)
            return
        rows = zip(curve.timesteps, curve.rate, curve.distortion, strict=True)
        lines = [f"{int(timestep)},{float(rate)!r},{float(distortion)!r}" for timestep, rate, distortion in rows]
        file.write("\n".join(["timestep,rate,distortion", *lines, ""]).encode())


def _plot(curve: Curve, path: str | os.PathLike[str], title: str) -> None:
    """Figure 5 of DDPM: distortion and rate over reverse steps, and distortion over rate."""
    from matplotlib.figure import Figure

    done = np.arange(len(curve.rate))
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    texts = ("reverse steps", "rate (bits/dim)", "distortion (RMSE)")
    panels = [(done, curve.distortion, 0, 2), (done, curve.rate, 0, 1), (curve.rate, curve.distortion, 1, 2)]
    for axis, (x, y, below, beside) in zip(axes, panels, strict=True):
        axis.plot(x, y, linewidth=1.2)
        axis.set(xlabel=texts[below], ylabel=texts[beside], xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.suptitle(title or f"{curve.images} images", fontsize="medium")
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=110)


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("a plot needs matplotlib: pip install matplotlib") from error
