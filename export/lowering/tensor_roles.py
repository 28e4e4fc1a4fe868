"""Which tensors of a network are the denoiser's, as importers find them and surgery.py adapts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TimeShape = Literal["scalar", "one", "batch"]


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: the tensor's.
        dtype: "float32", "int64", ...
        shape: a size, a name or None for each axis.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class TensorRoles:
    """Which tensors of a network are the denoiser's, and their form.

    Attributes:
        x, t, label, output: their names; label None for a network without classes.
        channels_last: x and output are (batch, H, W, C).
        time_shape: t is a scalar, (1,) ("one") or (batch,).
    """

    x: str
    t: str
    label: str | None
    output: str
    channels_last: bool
    time_shape: TimeShape
