"""Checks of solvers' options, one clear sentence each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pysdk.diffusion.table import Clip
from pysdk.errors import OptionError, OptionTypeError


def check_flags(**flags: bool) -> None:
    """OptionTypeError unless each is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise OptionTypeError(f"{name} is {flag!r}, expected True or False")


def check_choice(name: str, value: object, choices: Any) -> None:
    """OptionError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{name} is {value!r}, expected one of {list(choices)}")


def checked_number(name: str, value: Any, low: float, high: float, meaning: str) -> float:
    """`value` as a float in [low, high]; `meaning` ends the sentence "expected a number ...".

    Raises:
        OptionTypeError: it is no number.
        OptionError: it is outside, NaN or infinite (unless `high` is).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise OptionTypeError(f"{name} is {value!r}, expected a number {meaning}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond float64
        number = math.inf if value > 0 else -math.inf
    if not low <= number <= high:  # NaN too
        raise OptionError(f"{name} is {value!r}, expected a number {meaning}")
    return number


def checked_clip(clip: Clip) -> Clip:
    """OptionTypeError unless `clip` is a `Clip`."""
    if not isinstance(clip, Clip):
        raise OptionTypeError(f"clip is {clip!r}, expected Clip.none(), Clip.clamp() or Clip.dynamic()")
    return clip


def checked_count(name: str, value: Any, low: int, high: int) -> int:
    """`value` as an int in [low, high].

    Raises:
        OptionTypeError: it is no whole number.
        OptionError: it is outside.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise OptionTypeError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
    if not low <= value <= high:
        raise OptionError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
    return int(value)


def checked_eta(eta: float, s_noise: float) -> tuple[float, float]:
    """(eta in [0, 1], s_noise from 0); OptionError also if s_noise would scale no noise."""
    eta = checked_number("eta", eta, 0, 1, "from 0 (deterministic) to 1")
    s_noise = checked_number("s_noise", s_noise, 0, 1e3, "from 0 to 1000")
    if eta == 0 and s_noise != 1:
        raise OptionError(f"s_noise is {s_noise}, but with eta 0 there is no noise to scale; leave it out")
    return eta, s_noise
