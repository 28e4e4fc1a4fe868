"""What our numbers are promised for: a thread that rounds to nearest and keeps subnormal numbers.

A caller may have set something else (fesetround, flush-to-zero by a library of -ffast-math). The native code of pysdk
sets its own state in every thread; this does so for what numpy computes around it, such as step tables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pysdk import _native

P = ParamSpec("P")
R = TypeVar("R")


def standard_floats(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run in the standard floating-point state; the caller's comes back when it returns or raises."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with _native.FloatState():
            return function(*args, **kwargs)

    return guarded
