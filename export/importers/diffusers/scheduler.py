"""scheduler_config.json of diffusers -> schedule, reading of the output and default solver.

Every field is honoured or refused by name. What the two schedulers do with them is in `docs/import/diffusers.md`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct

from pysdk.diffusion.prediction import PREDICTION_TYPES
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.timesteps import SPACINGS
from pysdk.errors import CheckpointError, PysdkError
from pysdk.plan.manifest import ClipInfo, DefaultsInfo, ScheduleInfo

DDPM, DDIM = "DDPMScheduler", "DDIMScheduler"
STEPS = {DDPM: 1000, DDIM: 50}
"""Each scheduler's default number of steps in its pipeline."""


class SchedulerConfig(Struct, frozen=True, kw_only=True):
    """The fields of both schedulers with diffusers' defaults; each ignores those that only the other one has."""

    num_train_timesteps: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    thresholding: bool = False
    dynamic_thresholding_ratio: float = 0.995
    sample_max_value: float = 1.0
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    variance_type: str = "fixed_small"
    """DDPM only."""
    set_alpha_to_one: bool = True
    """DDIM only."""


SCHEDULE_NAMES = {"squaredcos_cap_v2": "cosine"}
"""Where ours differ from diffusers'."""

VARIANCE_TYPES = {
    "fixed_small": "fixed_small",
    "fixed_small_log": "fixed_small",  # the same number through a logarithm and back
    "fixed_large": "fixed_large",
    "learned_range": "learned_range",
}

REFUSED_VARIANCE_TYPES = {
    "fixed_large_log": "diffusers takes the square root of that negative logarithm, so its own images are NaN; "
    "use 'fixed_large'",
    "learned": "a network that returns the variance itself, not iDDPM's interpolation, has no row in the step table; "
    "sample it with a DDIMScheduler or train with 'learned_range'",
}


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler says about a plan.

    Attributes:
        schedule: the forward process.
        prediction_type: what the network's output is.
        variance_type: the reverse variance.
        defaults: solver, steps, options and clip of diffusers' pipeline.
    """

    schedule: ScheduleInfo
    prediction_type: str
    variance_type: str
    defaults: DefaultsInfo


def read_scheduler(config: Mapping[str, Any], name: str, *, kind: str, steps: int) -> Scheduler:
    """The scheduler of a config.

    Args:
        config: the contents of a scheduler_config.json.
        name: what to call it in messages, e.g. its path.
        kind: the scheduler that runs it, "DDPMScheduler" or "DDIMScheduler"; a pipeline may convert one into the other.
        steps: those of the pipeline, or T if it has fewer.

    Raises:
        CheckpointError: a field is unknown, of the wrong type, or has a value that cannot be reproduced.
    """
    check_known(config, SchedulerConfig.__struct_fields__, kind, name)
    try:
        fields = msgspec.convert(dict(config), SchedulerConfig)
        clip = make_clip(fields)
        schedule = make_schedule(fields, kind)
    except (msgspec.ValidationError, PysdkError) as error:
        raise CheckpointError(f"{name}: {error}") from None
    variance_type = VARIANCE_TYPES.get(fields.variance_type)
    if kind == DDPM and variance_type is None:
        reason = REFUSED_VARIANCE_TYPES.get(fields.variance_type, f"expected one of {list(VARIANCE_TYPES)}")
        raise CheckpointError(f"{name}: variance_type is {fields.variance_type!r}: {reason}")
    if kind == DDIM and variance_type not in ("fixed_small", "fixed_large"):
        variance_type = "fixed_small"  # the scheduler does not read it
    for field, value, known in (
        ("prediction_type", fields.prediction_type, PREDICTION_TYPES),
        ("timestep_spacing", fields.timestep_spacing, tuple(SPACINGS)),
    ):
        if value not in known:
            raise CheckpointError(f"{name}: {field} is {value!r}, expected one of {list(known)}")
    options: dict[str, Any] = {"spacing": fields.timestep_spacing}
    if fields.timestep_spacing == "leading" and fields.steps_offset != 0:  # the other spacings do not read it
        options["steps_offset"] = fields.steps_offset
    if kind == DDPM:
        options |= {"final_noise": True}
    else:
        options |= {"prev_timestep": "stride", "set_alpha_to_one": fields.set_alpha_to_one}
    return Scheduler(
        schedule=schedule,
        prediction_type=fields.prediction_type,
        variance_type=variance_type or "",
        defaults=DefaultsInfo(
            solver="ddpm" if kind == DDPM else "ddim",
            steps=min(steps, schedule.timesteps),
            options=options,
            clip=clip,
        ),
    )


def check_known(config: Mapping[str, Any], known: tuple[str, ...], class_name: str, name: str) -> None:
    """CheckpointError for a field that is not `known`, unless it is null, false or diffusers' own default."""
    parameters = inspect.signature(getattr(importlib.import_module("diffusers"), class_name).__init__).parameters
    for field, value in config.items():
        if field.startswith("_") or field in known or value is None or value is False:
            continue
        if field not in parameters or parameters[field].default != value:
            raise CheckpointError(
                f"{name}: the field {field!r} ({str(value)[:50]}) is not one of {class_name} that is known here; "
                "nothing is dropped silently, remove it from the file if sampling does not depend on it"
            )


def make_clip(fields: SchedulerConfig) -> ClipInfo:
    """What is done to the estimate of the data; thresholding goes first, as in diffusers."""
    if fields.thresholding:
        if not fields.sample_max_value >= 1:
            raise CheckpointError(
                f"sample_max_value is {fields.sample_max_value}, expected at least 1: below it, diffusers shrinks "
                "every image"
            )
        if not 0 < fields.dynamic_thresholding_ratio <= 1:
            raise CheckpointError(
                f"dynamic_thresholding_ratio is {fields.dynamic_thresholding_ratio}, expected a number in (0, 1]"
            )
        return ClipInfo(kind="dynamic", ratio=fields.dynamic_thresholding_ratio, max_threshold=fields.sample_max_value)
    if not fields.clip_sample:
        return ClipInfo(kind="none")
    if not 0 < fields.clip_sample_range <= 1e9:
        raise CheckpointError(f"clip_sample_range is {fields.clip_sample_range}, expected a number above 0")
    return ClipInfo(kind="clamp", limit=fields.clip_sample_range)


def make_schedule(fields: SchedulerConfig, kind: str) -> ScheduleInfo:
    """The forward process, whose alphas_cumprod are the scheduler's own float32 numbers.

    The network was trained on those; `Schedule`'s, in float64, differ in the fourth digit of 1 - abar_0.
    """
    scheduler_class = getattr(importlib.import_module("diffusers"), kind)
    known = inspect.signature(scheduler_class.__init__).parameters.keys() & set(fields.__struct_fields__)
    try:
        alphas_cumprod = scheduler_class(**{name: getattr(fields, name) for name in known}).alphas_cumprod
    except NotImplementedError:
        raise CheckpointError(f"beta_schedule is {fields.beta_schedule!r}, which {kind} does not have") from None
    abar = alphas_cumprod.double().numpy()
    if len(abar) != fields.num_train_timesteps:
        raise CheckpointError(
            f"trained_betas has {len(abar)} values, but num_train_timesteps is {fields.num_train_timesteps}"
        )
    schedule = Schedule.from_betas(1 - abar / np.append(1.0, abar[:-1]))
    name = "trained" if fields.trained_betas else SCHEDULE_NAMES.get(fields.beta_schedule, fields.beta_schedule)
    return ScheduleInfo(
        name=f"{name}-zero-snr" if fields.rescale_betas_zero_snr else name, betas=tuple(schedule.betas.tolist())
    )
