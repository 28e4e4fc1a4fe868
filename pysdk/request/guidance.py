"""Guidance: weights per image, and the columns of a step table that say in which rows they count.

Classifier-free (Ho & Salimans 2022, https://arxiv.org/abs/2207.12598): f = f_u + w (f_c - f_u).
In an interval only (Kynkaanniemi et al. 2024, https://arxiv.org/abs/2404.07724): w = 1 elsewhere.
By a classifier (Dhariwal & Nichol 2021, Algorithm 2, https://arxiv.org/abs/2105.05233):
eps = eps - scale sqrt(1 - abar_t) grad_x log p(label | x_t), which moves the estimate of the data by
(1 - abar_t)/sqrt(abar_t) scale grad.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import per_image
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.table import STEP_COLUMNS, StepTable
from pysdk.errors import OptionError, OptionTypeError
from pysdk.plan.manifest import Manifest, ModelInfo

Float = NDArray[np.float32]


def resolve_guidance(model: ModelInfo, scale: object, n: int) -> Float | None:
    """Classifier-free scales for n images, or None if all are 1, which is the network without guidance."""
    if scale is None:
        return None
    values = _finite("guidance_scale", scale, n)
    if (values == 1).all():
        return None
    if model.null_label is None:
        raise OptionError(
            f"guidance_scale is {scale!r}, but {model.name!r} was trained without a null label: only 1, which is no "
            "guidance, can be used"
        )
    return values


def resolve_classifier_scale(manifest: Manifest, scale: object, n: int) -> Float | None:
    """Classifier scales for n images, or None if all are 0, which is the chain without a classifier."""
    if scale is None:
        return None
    values = _finite("classifier_scale", scale, n)
    if (values == 0).all():
        return None
    if manifest.classifier is None:
        raise OptionError(
            f"classifier_scale is {scale!r}, but the plan of {manifest.model.name!r} holds no classifier; add one with "
            "`pysdk add-classifier`, or leave it out"
        )
    return values


def guide_table(
    table: StepTable,
    schedule: Schedule | EdmSchedule,
    guidance: Float | None,
    classifier_scale: Float | None,
    interval: object,
) -> StepTable:
    """`table` with its columns `unguided` and `grad` set for these scales and this interval of timesteps.

    Raises:
        OptionError: the interval is not valid, holds no timestep of the table, or nothing guides within it; or the
            classifier is called at a timestep where alphas_cumprod is 0.
        OptionTypeError: the interval is not a pair of numbers.
    """
    if guidance is None and classifier_scale is None:
        if interval is not None:
            raise OptionError(
                f"guidance_interval is {interval!r}, but nothing guides: give a guidance_scale other than 1 or a "
                "classifier_scale other than 0 too"
            )
        return table
    if classifier_scale is not None and isinstance(schedule, EdmSchedule):
        raise OptionError("classifier_scale is given, but this is a network of sigma; classifiers take timesteps")
    calls = table.column("skip") == 0
    inside = calls & _inside(interval, table.timesteps)
    if interval is not None and not inside.any():
        raise OptionError(f"guidance_interval is {interval!r}, but no step is at a timestep in it")
    changes: dict[str, Float64Array] = {}
    if guidance is not None and interval is not None:
        changes["unguided"] = np.where(calls & ~inside, 1.0, table.column("unguided"))
    if classifier_scale is not None and isinstance(schedule, Schedule) and not table.column("grad").any():
        changes["grad"] = np.where(inside, _gradient_weights(schedule, table.timesteps, inside), 0.0)
    return with_columns(table, **changes)


def with_columns(table: StepTable, **columns: Float64Array) -> StepTable:
    """A copy of `table` in which some columns, float64 (K,), are others."""
    rows = table.rows.copy()
    for name, values in columns.items():
        rows[:, STEP_COLUMNS.index(name)] = values
    return dataclasses.replace(table, rows=rows)


def _gradient_weights(schedule: Schedule, timesteps: Float64Array, inside: NDArray[np.bool_]) -> Float64Array:
    """(1 - abar_t)/sqrt(abar_t); between two timesteps, log((1 - abar)/abar) is interpolated."""
    log_variance = np.interp(timesteps, np.arange(len(schedule)), -np.log(np.maximum(schedule.snr, 1e-300)))
    abar = 1 / (1 + np.exp(np.minimum(log_variance, 690.0)))
    exact = timesteps == np.round(timesteps)
    abar[exact] = schedule.alphas_cumprod[timesteps[exact].astype(np.int64)]
    if (abar[inside] < 1e-30).any():
        raise OptionError(
            "classifier guidance has no weight where alphas_cumprod is 0 (zero terminal SNR); leave that timestep out "
            "with guidance_interval or steps"
        )
    weights: Float64Array = (1 - abar) / np.sqrt(np.maximum(abar, 1e-30))
    return weights


def _inside(interval: object, timesteps: Float64Array) -> NDArray[np.bool_]:
    """Which timesteps lie in [low, high]; all, if there is no interval."""
    if interval is None:
        return np.ones(len(timesteps), np.bool_)
    try:
        low, high = (float(bound) for bound in interval)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise OptionTypeError(
            f"guidance_interval is {interval!r}, expected a pair of timesteps (lowest, highest)"
        ) from None
    if not low <= high:
        raise OptionError(f"guidance_interval is {interval!r}, expected the lower timestep first")
    return (timesteps >= low) & (timesteps <= high)


def _finite(name: str, scale: object, n: int) -> Float:
    with np.errstate(over="ignore"):  # the check for infinity follows
        values: Float = per_image(name, scale, n, np.float32).astype(np.float32)
    if not np.isfinite(values).all():
        raise OptionError(f"{name} is {scale!r}, expected finite numbers")
    return values
