"""Views against numpy: the same rearrangements of an array of numbered elements."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pysdk.export.engines.native.from_onnx.views import View, broadcast, covers, map_view
from pysdk.export.engines.native.program import NotCovered, Tensor

BATCH = 5


def elements(view: View, tensor: Tensor) -> np.ndarray:
    """Which element of the tensor (image, channel, pixel) each place of a view shows."""
    steps = {"b": tensor.channels * tensor.pixels, "c": tensor.pixels, "p": 1, None: 0}
    index = np.full((), view.first * tensor.pixels)
    for dim in view.dims:
        for part in dim:
            index = index[..., None] + np.arange(part.size) * part.stride * steps[part.axis]
    return index.reshape(view.shape)


@st.composite
def journeys(draw: st.DrawFn) -> tuple[Tensor, View, np.ndarray]:
    """A tensor, a view of it after some rearrangements, and numpy's result of the same."""
    tensor = Tensor(draw(st.sampled_from([1, 6, 8, 12])), draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    view = map_view(0, tensor, BATCH)
    array = np.arange(BATCH * tensor.channels * tensor.pixels).reshape(view.shape)
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["reshape", "transpose", "slice", "insert"]))
        try:
            if kind == "reshape":
                shape = draw(st.sampled_from(reshapes(array.shape)))
                view, array = view.reshape(shape), array.reshape(shape)
            elif kind == "transpose":
                order = draw(st.permutations(range(array.ndim)))
                view, array = view.transpose(order), array.transpose(order)
            elif kind == "slice":
                axis = draw(st.integers(0, array.ndim - 1))
                start = draw(st.integers(0, array.shape[axis] - 1))
                stop = draw(st.integers(start + 1, array.shape[axis]))
                view = view.slice(axis, start, stop)
                array = array[(slice(None),) * axis + (slice(start, stop),)]
            else:
                axis, size = draw(st.integers(0, array.ndim)), draw(st.integers(1, 3))
                view, array = view.insert(axis, size), np.expand_dims(array, axis).repeat(size, axis)
        except NotCovered:
            continue
    return tensor, view, array


def reshapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes with as many elements: neighbours merged, one dimension split."""
    found = [shape, (math.prod(shape),)]
    for axis, size in enumerate(shape):
        found += [(*shape[:axis], part, size // part, *shape[axis + 1 :]) for part in (2, 3, 5) if size % part == 0]
        if axis:
            found.append((*shape[: axis - 1], shape[axis - 1] * size, *shape[axis + 1 :]))
    return found


@settings(deadline=None)
@given(journeys())
def test_a_view_shows_what_numpy_shows(journey):
    tensor, view, array = journey
    assert view.shape == array.shape
    np.testing.assert_array_equal(elements(view, tensor), array)
    once = np.unique(array).size == array.size == BATCH * tensor.channels * tensor.pixels
    assert covers(view, tensor) or not once


@settings(deadline=None)
@given(journeys(), st.data())
def test_broadcast_pairs_elements_as_numpy_does(journey, data):
    tensor, view, array = journey
    kept = data.draw(st.lists(st.booleans(), min_size=array.ndim, max_size=array.ndim))
    other, other_array = view, array
    for axis, keep in enumerate(kept):
        if not keep and array.shape[axis] > 1 and {part.axis for part in view.dims[axis]} == {"c"}:
            try:
                other = other.slice(axis, 0, 1)
            except NotCovered:
                continue
            other_array = other_array[(slice(None),) * axis + (slice(0, 1),)]
    left, right, shape = broadcast(view, other)
    assert shape == np.broadcast_shapes(array.shape, other_array.shape)
    for parts, first, expected in ((left, view.first, array), (right, other.first, other_array)):
        found = elements(View(0, (tuple(parts),), first), tensor).reshape(shape)
        np.testing.assert_array_equal(found, np.broadcast_to(expected, shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda view: view.reshape((5, 3, 32)), "reshapes to .* across the borders"),
        (lambda view: view.reshape((5, 8)), "which has fewer elements"),
        (lambda view: view.slice(0, 1, 3), "takes 1:3 of 5 images"),
        (lambda view: view.slice(2, 0, 2), "takes 0:2 of 3 pixels"),
        (lambda view: view.expand((5, 2, 3, 4)), "expands"),
    ],
)
def test_what_no_view_can_show(change, message):
    with pytest.raises(NotCovered, match=message):
        change(map_view(0, Tensor(8, 3, 4), BATCH))
