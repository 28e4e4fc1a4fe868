"""The `deadline` of a call: seconds after which it ends with DeadlineError."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pysdk import _native
from pysdk.errors import DeadlineError, OptionError, OptionTypeError


@dataclass(frozen=True)
class Deadline:
    """Seconds that were given, counted from `of`, and the stop that comes when they are over."""

    seconds: float
    stop: _native.Stop

    @classmethod
    def of(cls, seconds: object) -> Deadline | None:
        """A deadline that begins now; none for None.

        Raises:
            OptionError, OptionTypeError: it is not a finite number above 0.
        """
        if seconds is None:
            return None
        if isinstance(seconds, bool) or not hasattr(seconds, "__float__"):
            raise OptionTypeError(f"deadline is {seconds!r}, expected a number of seconds")
        try:
            value = float(seconds)
        except OverflowError:
            value = math.inf
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"deadline is {seconds!r}, expected a finite number of seconds above 0")
        return cls(value, _native.Stop(value))


@contextmanager
def told(
    deadline: Deadline | None, done: int, images: int, chain: _native.Chain | _native.CudaChain | _native.Bound
) -> Iterator[None]:
    """Turns StoppedError into DeadlineError, which says how many images, and rows of this chain, were done."""
    try:
        yield
    except _native.StoppedError:
        if deadline is None:
            raise
        raise DeadlineError(
            f"the deadline of {deadline.seconds:g} s is over: {done} of {images} images were done, the next were at "
            f"row {chain.position} of {chain.length}; give more time, or ask for fewer images or steps"
        ) from None
