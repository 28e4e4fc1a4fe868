"""Which training timesteps a chain visits, in descending order.

The three spacings are those of Lin et al., Common Diffusion Noise Schedules and Sample Steps Are Flawed, 2023, table 2
(https://arxiv.org/abs/2305.08891), with the rounding of diffusers' DDPM and DDIM schedulers. The strings are the
respacing rule of Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, section 4
(https://arxiv.org/abs/2102.09672).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import is_whole_number, whole_number
from pysdk.errors import OptionError, OptionTypeError

_DIGITS = 20
"""The most in a number of a respacing rule: more than any schedule needs, fewer than Python refuses to read."""

Int64Array = NDArray[np.int64]
Steps = int | str | Sequence[int] | Int64Array | None


def leading(num_train_timesteps: int, steps: int) -> Int64Array:
    """Multiples of T // steps, from 0.

    The chain starts at (steps - 1) (T // steps), below T - 1 unless steps is T: 980 for 50 of 1000, but 599 for 600.
    """
    stride = num_train_timesteps // steps
    return np.arange((steps - 1) * stride, -1, -stride, dtype=np.int64)


def trailing(num_train_timesteps: int, steps: int) -> Int64Array:
    """round(T - i T / steps) - 1: always starts at T - 1.

    The float steps of `arange` decide how halves round, as in diffusers. There, rounding also lets `arange` run one too
    far for some pairs (17 timesteps in 7 steps), to a timestep -1; here exactly `steps` are taken.
    """
    grid = np.arange(num_train_timesteps, 0, -(num_train_timesteps / steps))[:steps]
    return np.round(grid).astype(np.int64) - 1


def linspace(num_train_timesteps: int, steps: int) -> Int64Array:
    """round(linspace(0, T - 1, steps)): starts at T - 1 and ends at 0."""
    ascending = np.round(np.linspace(0, num_train_timesteps - 1, steps)).astype(np.int64)
    return ascending[::-1]  # not linspace(T - 1, 0): some halves would round the other way


SPACINGS: dict[str, Callable[[int, int], Int64Array]] = {"leading": leading, "trailing": trailing, "linspace": linspace}


def make_timesteps(
    num_train_timesteps: int, steps: Steps = None, *, spacing: str | None = None, steps_offset: int = 0
) -> Int64Array:
    """The timesteps of a chain, int64 (K,), strictly descending within [0, T).

    Args:
        num_train_timesteps: T.
        steps: how many (1 to T, spread by `spacing`); None for all T; a list of timesteps; or a respacing string:
            "ddim50" (50 timesteps from 0 with one integer stride) or "10,10,5" (so many from each equal section of
            training, the noisiest section last).
        spacing: "leading" (the default, as in diffusers), "trailing" or "linspace"; for a number of steps only.
        steps_offset: added to every timestep of the "leading" spacing.

    Raises:
        OptionError: a value cannot be used; nothing is rounded or ignored to make it fit.
        OptionTypeError: `steps` or `steps_offset` is of another type.
    """
    if spacing is not None and (not isinstance(spacing, str) or spacing not in SPACINGS):
        raise OptionError(f"spacing is {spacing!r}, expected one of {sorted(SPACINGS)}")
    if steps_offset != 0 and (spacing or "leading") != "leading":
        raise OptionError(f"steps_offset is {steps_offset!r}, but spacing {spacing!r} has none; use 'leading'")
    if steps is None or is_whole_number(steps):
        count = num_train_timesteps if steps is None else operator.index(steps)  # type: ignore[arg-type]
        return _spaced(
            num_train_timesteps,
            count,
            spacing or "leading",
            whole_number("steps_offset", steps_offset, -num_train_timesteps, num_train_timesteps),
        )
    if spacing is not None or steps_offset != 0:
        raise OptionError(f"steps is {steps!r}, which names the timesteps; leave out spacing and steps_offset")
    if isinstance(steps, str):
        return _respaced(num_train_timesteps, steps)
    return _listed(num_train_timesteps, steps)  # type: ignore[arg-type]


def _spaced(num_train_timesteps: int, steps: int, spacing: str, offset: int) -> Int64Array:
    if not 1 <= steps <= num_train_timesteps:
        raise OptionError(f"steps is {steps}, expected 1 to {num_train_timesteps}, the timesteps of the schedule")
    timesteps = SPACINGS[spacing](num_train_timesteps, steps)
    low, high = int(timesteps[-1]) + offset, int(timesteps[0]) + offset  # Python's integers do not overflow
    if high >= num_train_timesteps or low < 0:
        raise OptionError(
            f"steps_offset is {offset}: timesteps {low} to {high} leave the {num_train_timesteps} timesteps of the "
            "schedule; use a smaller offset or fewer steps"
        )
    timesteps = timesteps + offset
    if steps == 1 and timesteps[0] == 0 and num_train_timesteps > 1:
        # diffusers runs this; the network would be told that pure noise is almost clean
        raise OptionError(f"steps is 1, which spacing {spacing!r} puts at timestep 0; use spacing='trailing'")
    return timesteps


def _listed(num_train_timesteps: int, values: Sequence[int]) -> Int64Array:
    try:
        timesteps = [operator.index(value) for value in values]
    except TypeError:
        raise OptionTypeError(
            f"steps is {values!r}, expected an int, None, a respacing string or a 1-D list of integer timesteps"
        ) from None
    if not timesteps:
        raise OptionError("steps is an empty list, expected at least one timestep")
    if any(s >= t for t, s in itertools.pairwise(timesteps)):
        raise OptionError(f"steps is {values!r}, expected strictly descending timesteps; sort them, drop duplicates")
    if timesteps[0] >= num_train_timesteps or timesteps[-1] < 0:
        raise OptionError(f"steps is {values!r}, expected timesteps from 0 to {num_train_timesteps - 1}")
    return np.array(timesteps, dtype=np.int64)


def _respaced(num_train_timesteps: int, rule: str) -> Int64Array:
    """The published rule of iDDPM's code, `space_timesteps`, largest timestep first."""
    digits = rule.removeprefix("ddim").split(",")
    readable = all(part.strip().isdecimal() and len(part) <= _DIGITS for part in digits)
    if not readable or (rule.startswith("ddim") and len(digits) > 1):
        raise OptionError(f"steps is {rule!r}, expected 'ddimN' or counts such as '10,10,5'")
    counts = [int(part) for part in digits]
    if rule.startswith("ddim"):
        strides = (s for s in range(1, num_train_timesteps + 1) if len(range(0, num_train_timesteps, s)) == counts[0])
        stride = next(strides, None)
        if stride is None:
            raise OptionError(f"steps is {rule!r}, but no integer stride takes {counts[0]} of {num_train_timesteps}")
        return np.arange(0, num_train_timesteps, stride, dtype=np.int64)[::-1]
    size, extra = divmod(num_train_timesteps, len(counts))
    kept: list[int] = []
    start = 0
    for index, count in enumerate(counts):
        length = size + (index < extra)
        if not 1 <= count <= length:
            raise OptionError(f"steps is {rule!r}: section {index} has {length} timesteps, cannot take {count} of them")
        stride_ = (length - 1) / (count - 1) if count > 1 else 1.0
        # a running sum, as published: a product would round some halves the other way
        kept += [start + round(offset) for offset in itertools.accumulate([0.0] + [stride_] * (count - 1))]
        start += length
    return np.array(kept[::-1], dtype=np.int64)
