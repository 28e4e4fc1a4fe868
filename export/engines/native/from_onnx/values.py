"""What a name in the graph can stand for while it is read, beside a `View` of one of the program's tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pysdk.export.engines.native.from_onnx.views import View


@dataclass(frozen=True)
class Line:
    """t * scale * slope, element by element: timesteps on their way to sines."""

    scale: float
    slope: NDArray[np.float64]


@dataclass(frozen=True)
class Wave:
    """sin(t * scale * slope + quarter_turns * pi / 2), element by element; a constant 0 or 1 has slope 0."""

    scale: float
    slope: NDArray[np.float64]
    quarter_turns: NDArray[np.float64]


@dataclass(frozen=True)
class Gate:
    """sigmoid(x): half of a SiLU."""

    x: View


@dataclass(frozen=True)
class Bordered:
    """x with zeros around it: half of a convolution. Pads are top, left, bottom, right."""

    x: View
    pads: tuple[int, int, int, int]


@dataclass(frozen=True)
class Scores:
    """factor * q k^T, (..., queries, keys), and its softmax over the keys once `normalized`.

    Attributes:
        q: (..., queries, channels).
        k: (..., keys, channels).
        factor: multiplies the products.
        normalized: whether the softmax is taken.
        swapped: whether it is seen as (..., keys, queries).
    """

    q: View
    k: View
    factor: float
    normalized: bool = False
    swapped: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As the graph sees it."""
        last = (self.q.shape[-2], self.k.shape[-2])
        return (*self.q.shape[:-2], *(last[::-1] if self.swapped else last))


Const: TypeAlias = NDArray[np.generic]
Value: TypeAlias = "Const | View | Line | Wave | Gate | Bordered | Scores"


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape the graph sees."""
    if isinstance(value, Line | Wave):
        return value.slope.shape
    if isinstance(value, Gate):
        return value.x.shape
    if isinstance(value, Bordered):
        *rest, height, width = value.x.shape
        top, left, bottom, right = value.pads
        return (*rest, height + top + bottom, width + left + right)
    return value.shape


def describe(value: Value) -> str:
    """What it is, for a message."""
    names: dict[type, str] = {
        Line: "a multiple of t",
        Wave: "sines of t",
        Gate: "a sigmoid",
        Bordered: "a padded map",
        Scores: "attention scores",
        View: "a tensor",
    }
    return f"{names.get(type(value), 'a constant')} of shape {shape_of(value)}"
