"""Checks of arguments: numbers, flags, choices, tensors, one value per image; one clear sentence each."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import OptionError, OptionTypeError


def check_tensor(name: str, array: NDArray[np.float32] | None, shape: tuple[int, ...], *, finite: bool = False) -> None:
    """OptionError unless `array` is None, or float32 of `shape` and, if it has to be, finite."""
    dtype = getattr(array, "dtype", type(array).__name__)
    found = getattr(array, "shape", ())
    if array is not None and (dtype != np.float32 or found != shape):
        raise OptionError(f"{name} is {dtype} of shape {found}, expected a float32 array of shape {shape}")
    if finite and array is not None and not np.isfinite(array).all():
        raise OptionError(f"{name} holds NaN or infinity, expected finite numbers")


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """`value` as an int in [low, high]; OptionTypeError or OptionError names it otherwise."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionTypeError(f"{name} is {value!r}, expected a whole number from {low} to {high}") from None
    if isinstance(value, bool) or not low <= number <= high:
        shown = repr(value) if number.bit_length() <= 128 else f"a number of {number.bit_length()} bits"
        raise OptionError(f"{name} is {shown}, expected a whole number from {low} to {high}")
    return number


def is_whole_number(value: object) -> bool:
    """Whether `value` is an int, of Python or numpy, and no bool."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def flag(name: str, value: object) -> bool:
    """`value`, True or False; OptionTypeError names it otherwise."""
    if not isinstance(value, bool):
        raise OptionTypeError(f"{name} is {value!r}, expected True or False")
    return value


def check_flags(**flags: bool) -> None:
    """OptionTypeError unless each is True or False, of Python or numpy."""
    for name, value in flags.items():
        if not isinstance(value, np.bool_):
            flag(name, value)


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


def per_image(name: str, value: object, n: int, dtype: Any) -> NDArray[Any]:
    """One value for all images, or one for each: an array of `dtype` and shape (n,)."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise OptionError(f"{name} is {value!r}, expected one number or {n} of them") from None
    wanted = "a number" if np.dtype(dtype).kind == "f" else "a whole number"
    if array.size and array.dtype.kind not in ("fiu" if np.dtype(dtype).kind == "f" else "iu"):
        raise OptionTypeError(f"{name} has dtype {array.dtype}, expected {wanted} or {n} of them")
    if array.shape not in ((), (n,)):
        raise OptionError(f"{name} has shape {array.shape}, expected {wanted} or one per image, shape ({n},)")
    return np.ascontiguousarray(np.broadcast_to(array, (n,)))


def resolve_seeds(seed: int | Sequence[int], n: int) -> NDArray[np.uint64]:
    """Seeds of n images: one for all or one for each, in [0, 2^64)."""
    if not isinstance(seed, (Sequence, np.ndarray)) or isinstance(seed, str) or np.shape(seed) == ():
        return np.full(n, whole_number("seed", seed, 0, 2**64 - 1), np.uint64)
    values = list(seed)
    if len(values) != n:
        raise OptionError(f"seed has {len(values)} values, expected one number or one per image, {n}")
    return np.array([whole_number("seed", value, 0, 2**64 - 1) for value in values], np.uint64)
