"""What a caller may have set before it calls us: rounding modes, flush-to-zero, denormals-are-zero, traps."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from pysdk import Sampler

LIBM = ctypes.CDLL(None)
FLUSH, DENORMALS, MASKS = 1 << 15, 1 << 6, 0x1F80
STATES = {
    "up": 0x4000 | MASKS,
    "down": 0x2000 | MASKS,
    "to zero": 0x6000 | MASKS,
    "flush to zero": FLUSH | MASKS,
    "denormals are zero": DENORMALS | MASKS,
    "all at once": 0x4000 | FLUSH | DENORMALS | MASKS,
    "traps": MASKS & ~0x0E80,  # invalid, division by zero, overflow, underflow: the next one ends the process
}
"""MXCSR by name."""

on_x86_and_glibc = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or platform.libc_ver()[0] != "glibc",
    reason="sets MXCSR through glibc's fenv_t",
)


class Fenv(ctypes.Structure):
    """fenv_t of glibc on x86-64."""

    _fields_ = (("x87", ctypes.c_char * 28), ("mxcsr", ctypes.c_uint32))


def mxcsr() -> int:
    """The control bits of this thread, without the flags of what happened."""
    found = Fenv()
    assert LIBM.fegetenv(ctypes.byref(found)) == 0
    return found.mxcsr & ~0x3F


def set_mxcsr(value: int) -> None:
    """For this thread; what happened is forgotten."""
    wanted = Fenv()
    assert LIBM.fegetenv(ctypes.byref(wanted)) == 0
    wanted.mxcsr = value
    assert LIBM.fesetenv(ctypes.byref(wanted)) == 0


@contextmanager
def thread_in(state: str) -> Iterator[None]:
    """This thread in that state. Only calls of ours belong inside: numpy and Python themselves compute with it."""
    before = mxcsr()
    set_mxcsr(STATES[state])
    try:
        yield
        after = mxcsr()
    finally:
        set_mxcsr(before)
    assert after == STATES[state], "the caller's state did not come back"


def is_in_force(state: str) -> bool:
    """Whether numpy computes otherwise in that state; traps would end the process."""
    small, third = np.float32(1e-40), np.float32(1) / np.float32(3)
    expected = (small * np.float32(0.5), np.float32(1) / np.float32(3), -third * third)
    with thread_in(state):
        found = (small * np.float32(0.5), np.float32(1) / np.float32(3), -third * third)
    return found != expected


def bits(array: Any) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def draw(sampler: Sampler) -> bytes:
    """A guided chain with learned variance, one of a level solver, and the images while they form."""
    kinds = ({"solver": "ddpm", "guidance_scale": 2.5}, {"solver": "dpmpp_2m"})
    made = b"".join(bits(sampler.sample(3, seed=5, steps=4, **kind)) for kind in kinds)
    floats = sampler.sample(3, seed=5, steps=4, solver="ddpm", output="float32")
    return made + bits(floats) + b"".join(bits(preview.denoised) for preview in sampler.stream(2, steps=2))
