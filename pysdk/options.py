"""Checks of solvers' options, one clear sentence each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pysdk.errors import OptionError, OptionTypeError
from pysdk.table import Clip


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
    if math.isnan(value) or not low <= value <= high:
        raise OptionError(f"{name} is {value!r}, expected a number {meaning}")
    return float(value)


def checked_clip(clip: Clip) -> Clip:
    """OptionTypeError unless `clip` is a `Clip`."""
    if not isinstance(clip, Clip):
        raise OptionTypeError(f"clip is {clip!r}, expected Clip.none(), Clip.clamp() or Clip.dynamic()")
    return clip
