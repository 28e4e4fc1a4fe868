"""A tensor of the program as the graph sees it: any Reshape, Transpose, Slice or Expand of it, without a copy.

A tensor has three axes in memory: "b" images, "p" pixels (row by row), "c" channels. Each dimension of a view is a list
of components (size, axis, stride), outermost first: strides as in numpy, but on axes, and a dimension may be made of
several, e.g. batch and heads merged into one. Axis None repeats the same values (Expand). Components of size 1 are
dropped, so that every view has one form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

from pysdk.export.engines.native.program import NotCovered, Tensor

BATCH = 997
"""Images while the graph is read: a prime, so that no other size of a network can be mistaken for it."""

Axis = Literal["b", "c", "p"]


class Component(NamedTuple):
    """`size` steps of `stride` along an axis."""

    size: int
    axis: Axis | None
    stride: int


Dim: TypeAlias = tuple[Component, ...]


@dataclass(frozen=True)
class View:
    """factor * tensor[...] + plus, in the form that `dims` describe.

    Attributes:
        tensor: index of the program's tensor, or `LABEL`.
        dims: the view's dimensions.
        first: channel at which it starts.
        factor, plus: arithmetic that is not done yet.
    """

    tensor: int
    dims: tuple[Dim, ...]
    first: int = 0
    factor: float = 1.0
    plus: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return tuple(math.prod(component.size for component in dim) for dim in self.dims)

    def reshape(self, shape: Sequence[int]) -> View:
        """numpy's reshape."""
        return replace(self, dims=regroup([component for dim in self.dims for component in dim], shape))

    def transpose(self, order: Sequence[int]) -> View:
        """numpy's transpose."""
        return replace(self, dims=tuple(self.dims[index] for index in order))

    def slice(self, axis: int, start: int, stop: int) -> View:
        """[start:stop] along one dimension."""
        dim, size = self.dims[axis], self.shape[axis]
        if (start, stop) == (0, size):
            return self
        outer, rest = (dim[0], dim[1:]) if dim else (None, ())
        inner = math.prod(component.size for component in rest)
        if outer is None or outer.axis != "c" or start % inner or (stop - start) % inner or stop <= start:
            what = "images" if outer and outer.axis == "b" else "pixels or mixed parts"
            raise NotCovered(f"takes {start}:{stop} of {size} {what}; only channels can be sliced")
        kept = Component((stop - start) // inner, outer.axis, outer.stride)
        dims = (*self.dims[:axis], coalesced([kept, *rest]), *self.dims[axis + 1 :])
        return replace(self, dims=dims, first=self.first + start // inner * outer.stride)

    def insert(self, axis: int, size: int = 1) -> View:
        """A new dimension that repeats the view `size` times."""
        dims = list(self.dims)
        dims.insert(axis, coalesced([Component(size, None, 0)]))
        return replace(self, dims=tuple(dims))

    def expand(self, shape: Sequence[int]) -> View:
        """numpy's broadcast_to, where a 1 of `shape` leaves a dimension as it is."""
        view = self
        while len(view.dims) < len(shape):
            view = view.insert(0)
        target = [1] * (len(view.dims) - len(shape)) + list(shape)
        dims = []
        for dim, found, wanted in zip(view.dims, view.shape, target, strict=True):
            if found not in (1, wanted) and wanted != 1:
                raise NotCovered(f"expands {self.shape} to {tuple(shape)}")
            dims.append(coalesced([Component(wanted, None, 0)]) if found == 1 else dim)
        return replace(view, dims=tuple(dims))


LABEL = -1
"""The "tensor" of the images' labels: (batch,) whole numbers."""


def coalesced(components: Sequence[Component]) -> Dim:
    """The same steps in as few components as possible."""
    found: list[Component] = []
    for component in components:
        if component.size == 1:
            continue
        last = found[-1] if found else None
        if last and last.axis == component.axis and last.stride == component.size * component.stride:
            found[-1] = Component(last.size * component.size, component.axis, component.stride)
        else:
            found.append(component)
    return tuple(found)


def regroup(components: Sequence[Component], shape: Sequence[int]) -> tuple[Dim, ...]:
    """Components dealt out anew to dimensions of these sizes; a component is split where a dimension ends in it."""
    rest = [component for component in reversed(components) if component.size != 1]
    dims = []
    for size in shape:
        missing, dim = size, []
        while missing > 1:
            component = rest.pop() if rest else Component(1, None, 0)
            if missing % component.size == 0 and component.size > 1:
                dim.append(component)
            elif component.size % missing == 0 and component.size > 1:
                inner = component.size // missing
                dim.append(Component(missing, component.axis, component.stride * inner))
                rest.append(Component(inner, component.axis, component.stride))
            else:
                raise NotCovered(f"reshapes to {tuple(shape)} across the borders of images, channels or pixels")
            missing //= dim[-1].size
        dims.append(coalesced(dim))
    if rest:
        raise NotCovered(f"reshapes to {tuple(shape)}, which has fewer elements")
    return tuple(dims)


def map_view(index: int, tensor: Tensor, batch: int = BATCH) -> View:
    """A whole tensor as (batch, channels, height, width)."""
    images = Component(batch, None, 0) if tensor.shared else Component(batch, "b", 1)
    parts = (
        images,
        Component(tensor.channels, "c", 1),
        Component(tensor.height, "p", tensor.width),
        Component(tensor.width, "p", 1),
    )
    return View(index, tuple(coalesced([part]) for part in parts))


def components(view: View, axis: Axis | None) -> Dim:
    """The view's steps along one axis, in order."""
    return coalesced([component for dim in view.dims for component in dim if component.axis == axis])


def covers(view: View, tensor: Tensor) -> bool:
    """Whether the view has every channel and pixel of its tensor, once, in any order."""

    def complete(axis: Axis, size: int) -> bool:
        steps = sorted(components(view, axis), key=lambda part: -part.stride)
        return coalesced(steps) == coalesced([Component(size, axis, 1)])

    return view.first == 0 and complete("c", tensor.channels) and complete("p", tensor.pixels)


def broadcast(one: View, other: View) -> tuple[list[Component], list[Component], tuple[int, ...]]:
    """Both views as matching lists of components, repeating where numpy would, and the shape of a sum."""
    rank = max(len(one.dims), len(other.dims))
    shape, left, right = [], [], []
    for a, b in zip(padded(one, rank), padded(other, rank), strict=True):
        size_a, size_b = (math.prod(component.size for component in dim) for dim in (a, b))
        if size_a != size_b and 1 not in (size_a, size_b):
            raise NotCovered(f"joins shapes {one.shape} and {other.shape}")
        shape.append(max(size_a, size_b))
        a_parts, b_parts = aligned(a or repeated(shape[-1]), b or repeated(shape[-1]))
        left += a_parts
        right += b_parts
    return left, right, tuple(shape)


def repeated(size: int) -> Dim:
    """A dimension that has the same values `size` times."""
    return coalesced([Component(size, None, 0)])


def padded(view: View, rank: int) -> tuple[Dim, ...]:
    """Dimensions with those of size 1 that numpy puts before them."""
    return (*((),) * (rank - len(view.dims)), *view.dims)


def aligned(one: Dim, other: Dim) -> tuple[list[Component], list[Component]]:
    """Both dimensions in components of the same sizes."""
    left, right = list(reversed(one)), list(reversed(other))
    out: tuple[list[Component], list[Component]] = ([], [])
    while left and right:
        a, b = left.pop(), right.pop()
        size = min(a.size, b.size)
        if a.size % size or b.size % size:
            raise NotCovered(
                f"joins dimensions of {[tuple(part) for part in one]} and {[tuple(part) for part in other]}"
            )
        for parts, rest, component in ((out[0], left, a), (out[1], right, b)):
            inner = component.size // size
            parts.append(Component(size, component.axis, component.stride * inner))
            if inner > 1:
                rest.append(Component(inner, component.axis, component.stride))
    return out
