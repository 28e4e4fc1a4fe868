"""The noise levels a chain visits, for solvers that are written in sigma.

Every process is x = S (x_0 + sigma e). A network of timesteps (`Schedule`) has S = sqrt(abar) = 1/sqrt(1 + sigma^2); a
network of sigma (`EdmSchedule`) has S = 1. Solvers are written for x/S, where S is gone; `Levels.table` turns their
rows into rows for x, so a chain's state is always what its network was trained on, scaled by c_in alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pysdk.checks import check_choice, checked_number, whole_number
from pysdk.diffusion.edm import EDM_PREDICTION_TYPES, EdmSchedule, preconditioning
from pysdk.diffusion.prediction import read_output, read_signal
from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.sigmas import SIGMAS
from pysdk.diffusion.table import Clip, StepTable, checked_clip
from pysdk.diffusion.timesteps import Steps, make_timesteps
from pysdk.errors import OptionError, OptionTypeError

EDM_STEPS = 18
"""Default number of levels for a network of sigma: EDM's own for 32x32 images."""

MAX_LEVELS = 1_000_000

_TOLERANCE = 1e-9
"""How far, relatively, rounding may take a level beyond those that a network knows."""


@dataclass(frozen=True, eq=False)
class Levels:
    """K noise levels and the data after them.

    Attributes:
        schedule: in timesteps or in sigma.
        prediction_type: what the network's output is.
        sigmas: float64 (K + 1,), falling; the last is 0.
    """

    schedule: Schedule | EdmSchedule
    prediction_type: str
    sigmas: Float64Array

    def __len__(self) -> int:
        """K, the number of levels the network is asked at."""
        return len(self.sigmas) - 1

    @property
    def prior(self) -> float:
        """Deviation of x/S at the start: sqrt(1 + sigma^2) where x starts standard normal, sigma where S = 1."""
        return float(np.hypot(1, self.sigmas[0]) if isinstance(self.schedule, Schedule) else self.sigmas[0])

    def signal(self, sigmas: ArrayLike) -> Float64Array:
        """S at any levels."""
        sigmas = np.asarray(sigmas, np.float64)
        return 1 / np.sqrt(1 + sigmas**2) if isinstance(self.schedule, Schedule) else np.ones_like(sigmas)

    def reading(self, sigmas: Float64Array) -> dict[str, Any]:
        """The columns t, c_in, p, q of rows at `sigmas`, all above 0.

        Timesteps between those of training are interpolated in log sigma, as k-diffusion does.

        Raises:
            OptionError: a level is outside those that a network of timesteps knows.
        """
        if isinstance(self.schedule, Schedule):
            known = sigmas_of(self.schedule)
            low, high = known[0], known[-1]
            if sigmas.max() > high * (1 + _TOLERANCE) or sigmas.min() < low * (1 - _TOLERANCE):
                worst = sigmas.max() if sigmas.max() > high * (1 + _TOLERANCE) else sigmas.min()
                raise OptionError(
                    f"the chain would visit sigma {worst:.6g}, but the network knows {low:.6g} to {high:.6g}; change "
                    "sigma_min or sigma_max, or s_tmax if noise is added (s_churn)"
                )
            t = np.interp(np.log(sigmas), np.log(known), np.arange(len(known)))
            signal = self.signal(sigmas)
            p, q = read_signal(self.prediction_type, signal, sigmas * signal)
            return {"t": t, "c_in": np.ones_like(t), "p": p, "q": q}
        if self.prediction_type == "sample":
            return {"t": sigmas, "c_in": np.ones_like(sigmas), "p": np.zeros_like(sigmas), "q": np.ones_like(sigmas)}
        assert self.schedule.sigma_data is not None  # make_levels has checked
        c_in, p, q = preconditioning(sigmas, self.schedule.sigma_data)
        return {"t": np.log(sigmas) / 4, "c_in": c_in, "p": p, "q": q}

    def table(
        self,
        visited: Float64Array,
        *,
        clip: Clip,
        saved: ArrayLike = 1.0,
        prior: float | None = None,
        **rows: ArrayLike,
    ) -> StepTable:
        """A table from rows that are written for x/S.

        Args:
            visited: float64 (R + 1,); row i takes x/S from level visited[i], where the network is asked, to
                visited[i + 1].
            clip: what is done to the raw estimate.
            saved: float64 (R,), the level of y, in rows with g.
            prior: deviation of x/S at the start, if it is not `self.prior`.
            rows: the columns a, b, h, c1, c2, g, s, save for x/S; (R,) or one number.
        """
        now, after = self.signal(visited[:-1]), self.signal(visited[1:])
        scales = {"a": after / now, "g": after / self.signal(saved), "save": np.ones_like(now)}
        columns: dict[str, Any] = {name: scales.get(name, after) * np.asarray(column) for name, column in rows.items()}
        init_scale = float(self.signal(visited[0]) * (self.prior if prior is None else prior))
        return StepTable.from_columns(
            **columns, **self.reading(visited[:-1]), clip=checked_clip(clip), init_scale=init_scale
        )


def sigmas_of(schedule: Schedule) -> Float64Array:
    """sqrt((1 - abar)/abar), rising, float64 (T,); without the last timestep if its abar is 0."""
    abar = schedule.alphas_cumprod[schedule.alphas_cumprod > 0]
    sigmas: Float64Array = np.sqrt((1 - abar) / abar)
    return sigmas


def make_levels(
    schedule: Schedule | EdmSchedule,
    steps: Steps = None,
    *,
    prediction_type: str = "epsilon",
    spacing: str | None = None,
    steps_offset: int = 0,
    sigmas: str | Sequence[float] | Float64Array | None = None,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float | None = None,
) -> Levels:
    """The levels of a chain.

    Args:
        schedule: in timesteps or in sigma.
        steps: how many levels; with sigmas="timesteps", whatever `pysdk.diffusion.timesteps.make_timesteps` takes.
        prediction_type: what the network's output is.
        spacing, steps_offset: with sigmas="timesteps" only.
        sigmas: "timesteps" (those that `steps` names; the default for a network of timesteps), "karras" (the default
            for a network of sigma), "exponential", "polyexponential", or the levels themselves, falling, above 0.
        sigma_min, sigma_max: the last and first level of a rule; by default all that the network knows.
        rho: shape of "karras" (7) or "polyexponential" (1).

    Raises:
        OptionError, OptionTypeError: a value cannot be used, or would not be used.
    """
    _check_prediction(schedule, prediction_type)
    default = "timesteps" if isinstance(schedule, Schedule) else "karras"
    rule = default if sigmas is None else sigmas
    bounds = {"sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}
    if isinstance(rule, str) and rule == "timesteps":
        if not isinstance(schedule, Schedule):
            raise OptionError(f"sigmas is 'timesteps', but the network has none; use one of {sorted(SIGMAS)}")
        _refuse(bounds, "sigmas is 'timesteps'")
        timesteps = make_timesteps(len(schedule), steps, spacing=spacing, steps_offset=steps_offset)
        known = sigmas_of(schedule)
        if timesteps[0] >= len(known):
            raise OptionError(
                f"sigma is infinite at timestep {timesteps[0]}, where alphas_cumprod is 0 (zero terminal SNR); leave "
                "it out (steps as a list, or sigmas with a sigma_max), or use ddim or ddpm"
            )
        return Levels(schedule, prediction_type, np.append(known[timesteps], 0.0))
    _refuse({"spacing": spacing, "steps_offset": steps_offset or None}, f"sigmas is {rule!r}")
    if not isinstance(rule, str):
        _refuse({"steps": steps, **bounds}, "sigmas lists the levels")
        return Levels(schedule, prediction_type, np.append(_listed(rule), 0.0))
    check_choice("sigmas", rule, ["timesteps", *SIGMAS] if isinstance(schedule, Schedule) else SIGMAS)
    return Levels(schedule, prediction_type, np.append(_ruled(schedule, rule, steps, bounds), 0.0))


def _check_prediction(schedule: Schedule | EdmSchedule, prediction_type: str) -> None:
    if isinstance(schedule, EdmSchedule):
        check_choice("prediction_type of a network of sigma", prediction_type, EDM_PREDICTION_TYPES)
        if prediction_type == "edm" and schedule.sigma_data is None:
            raise OptionError("prediction_type is 'edm', which needs the schedule's sigma_data; it has None")
    else:
        read_output(prediction_type, np.array([0.5]))


def _refuse(given: Mapping[str, object], why: str) -> None:
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise OptionError(f"{why}, so {', '.join(unused)} would not be used; leave it out")


def _listed(values: Sequence[float] | Float64Array) -> Float64Array:
    try:
        levels = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise OptionTypeError(f"sigmas is {values!r}, expected a rule's name or a list of numbers") from None
    if levels.ndim != 1 or not levels.size or not np.isfinite(levels).all() or levels[-1] <= 0:
        raise OptionError(f"sigmas is {values!r}, expected finite levels above 0; the data, 0, is added")
    if np.any(np.diff(levels) >= 0):
        raise OptionError(f"sigmas is {values!r}, expected strictly falling levels")
    return levels


def _ruled(schedule: Schedule | EdmSchedule, rule: str, steps: Steps, bounds: dict[str, float | None]) -> Float64Array:
    """Levels by a rule, its ends exact."""
    if isinstance(schedule, EdmSchedule):
        low, high, count = schedule.sigma_min, schedule.sigma_max, EDM_STEPS if steps is None else steps
    else:
        known = sigmas_of(schedule)
        low, high, count = known[0], known[-1], len(schedule) if steps is None else steps
        if bounds["sigma_max"] is None and len(known) < len(schedule):
            raise OptionError(f"sigma is infinite where training starts (zero terminal SNR); give sigma_max for {rule}")
    count = whole_number("steps", count, 1, MAX_LEVELS)
    if bounds["sigma_min"] is not None:
        low = checked_number("sigma_min", bounds["sigma_min"], 1e-12, 1e9, "above 0")
    if bounds["sigma_max"] is not None:
        high = checked_number("sigma_max", bounds["sigma_max"], 1e-12, 1e9, "above 0")
    if low >= high:
        raise OptionError(f"sigma_min is {low}, expected less than sigma_max, {high}")
    shape: dict[str, float] = {}
    if bounds["rho"] is not None:
        if rule == "exponential":
            raise OptionError(f"rho is {bounds['rho']!r}, but sigmas 'exponential' has none; leave it out")
        shape["rho"] = checked_number("rho", bounds["rho"], 1e-3, 1e3, "from 0.001 to 1000")
    elif rule == "karras" and isinstance(schedule, EdmSchedule):
        shape["rho"] = schedule.rho
    levels = SIGMAS[rule](count, low, high, **shape)
    levels[-1], levels[0] = low, high
    return levels


def checked_eta(eta: float, s_noise: float) -> tuple[float, float]:
    """(eta in [0, 1], s_noise from 0); OptionError also if s_noise would scale no noise."""
    eta = checked_number("eta", eta, 0, 1, "from 0 (deterministic) to 1")
    s_noise = checked_number("s_noise", s_noise, 0, 1e3, "from 0 to 1000")
    if eta == 0 and s_noise != 1:
        raise OptionError(f"s_noise is {s_noise}, but with eta 0 there is no noise to scale; leave it out")
    return eta, s_noise
