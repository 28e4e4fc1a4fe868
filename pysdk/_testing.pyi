"""
What only tests use of the native half: a simulated device, and the noise by itself.
"""

from __future__ import annotations

import collections.abc
import typing

import numpy
import numpy.typing

import pysdk._native

__all__: list[str] = ["SimulatedDevice", "exp", "normal", "philox"]

class SimulatedDevice(pysdk._native.Device):
    """
    A device on host memory, for tests where there is no GPU.

    It runs the real kernels' bodies, graphs, loops and branches on the CPU, one after the other; only
    the driver's calls are imitated. It shows nothing of a real device's speed or of what a driver accepts.
    """
    def __init__(self, memory: typing.SupportsInt | typing.SupportsIndex = 1073741824) -> None:
        """
        Make one with `memory` bytes.
        """
    def call(
        self,
        stream: typing.SupportsInt | typing.SupportsIndex,
        name: str,
        work: collections.abc.Callable[[], typing.Any],
    ) -> None:
        """
        Enqueue a function, which a capture records as it does a kernel. Its owner keeps it as long as the graph.
        """
    def clear_log(self) -> None:
        """
        Forget the calls so far.
        """
    def fail(self, call: str, *, nth: typing.SupportsInt | typing.SupportsIndex = 1, how: str = "error") -> None:
        """
        Let the nth next call of this name fail: how is 'error', 'memory' or 'refused'.
        """
    @property
    def is_current(self) -> bool:
        """
        Whether it is the current device.
        """
    @property
    def live(self) -> int:
        """
        Allocations, streams, graphs and executables that were not released.
        """
    @property
    def log(self) -> list[str]:
        """
        Names of the calls so far, '> ' before those captured.
        """

def exp(x: numpy.typing.NDArray[numpy.float32]) -> numpy.typing.NDArray[numpy.float32]:
    """
    Return e^x as in learned variance: saturates below -87 and above 88.

    Args:
        x: float32 (n,).

    Returns:
        float32 (n,).
    """

def normal(
    seed: typing.SupportsInt | typing.SupportsIndex,
    images: numpy.typing.NDArray[numpy.uint64],
    draw: typing.SupportsInt | typing.SupportsIndex,
    shape: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex],
) -> numpy.typing.NDArray[numpy.float32]:
    """
    Return the standard normals of some images of a seed's gallery in one draw.

    Args:
        seed: 64-bit seed.
        images: uint64 (n,), indices in the gallery.
        draw: 0 for x_T, k + 1 for row k.
        shape: that of one image, usually (C, H, W).

    Returns:
        float32 (n, *shape).
    """

def philox(
    seed: typing.SupportsInt | typing.SupportsIndex, counters: numpy.typing.NDArray[numpy.uint32]
) -> numpy.typing.NDArray[numpy.uint32]:
    """
    Return Philox4x32-10 of each counter under the key `seed`.

    Args:
        seed: 64-bit key, low word first.
        counters: uint32 (n, 4).

    Returns:
        uint32 (n, 4).
    """
