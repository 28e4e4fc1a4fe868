"""Products of tensors: linear layers on tokens, and attention, whatever the order of heads, tokens and channels."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

import numpy as np

from pysdk.export.engines.native.from_onnx.layers import dense
from pysdk.export.engines.native.from_onnx.lowering import Lowering, Node, lowers
from pysdk.export.engines.native.from_onnx.values import Scores, Value, describe, shape_of
from pysdk.export.engines.native.from_onnx.views import Component, Dim, View, coalesced, components
from pysdk.export.engines.native.program import Attention, Heads, NotCovered, Tensor


@lowers("MatMul")
def matmul(lowering: Lowering, node: Node) -> Value:
    """numpy's matmul."""
    a, b = node.inputs
    assert a is not None
    assert b is not None
    return product(lowering, a, b)


def product(lowering: Lowering, a: Value, b: Value) -> Value:
    """a @ b."""
    if isinstance(b, Scores):  # a @ b = (b^T @ a^T)^T
        swapped = product(lowering, replace(b, swapped=not b.swapped), last_swapped(lowering.view(a)))
        assert isinstance(swapped, View)
        return last_swapped(swapped)
    if isinstance(a, Scores):
        return attention(lowering, a, lowering.view(b))
    if isinstance(b, np.ndarray):
        return dense(lowering, lowering.view(a), matrix(b).T)
    if isinstance(a, np.ndarray):
        return last_swapped(dense(lowering, last_swapped(lowering.view(b)), matrix(a)))
    if isinstance(a, View) and isinstance(b, View):
        q, k = (unscaled(lowering, view) for view in (a, last_swapped(b)))
        if q.shape[-1] != k.shape[-1] or q.shape[:-2] != k.shape[:-2]:
            raise NotCovered(f"multiplies shapes {a.shape} and {b.shape}")
        heads(lowering, q), heads(lowering, k)  # both have to be what attention can read
        return Scores(q, k, a.factor * b.factor)
    raise NotCovered(f"multiplies {describe(a)} and {describe(b)}")


def matrix(array: Any) -> Any:
    """A matrix without leading dimensions of 1."""
    if array.ndim < 2 or array.size != array.shape[-1] * array.shape[-2]:
        raise NotCovered(f"multiplies by a constant of shape {array.shape}, expected a matrix")
    return array.reshape(array.shape[-2:])


def last_swapped(view: View) -> View:
    """The view with its last two dimensions exchanged."""
    rank = len(view.dims)
    return view.transpose([*range(rank - 2), rank - 1, rank - 2])


def unscaled(lowering: Lowering, view: View) -> View:
    """The view without its factor, which the scores take."""
    return lowering.view(view) if view.plus else replace(view, factor=1.0)


@lowers("Softmax")
def softmax(lowering: Lowering, node: Node) -> Value:
    """Softmax of attention scores over the keys."""
    scores = node.inputs[0]
    if not isinstance(scores, Scores) or scores.normalized:
        raise NotCovered(f"is of {describe(scores)}, expected attention scores")  # type: ignore[arg-type]
    rank = len(scores.shape)
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1) % rank
    if axis != (rank - 2 if scores.swapped else rank - 1) or (node.opset < 13 and axis != rank - 1):
        raise NotCovered("is not over the keys of attention scores")
    return replace(scores, normalized=True)


def heads(lowering: Lowering, view: View) -> tuple[Heads, int, int, tuple[str, ...]]:
    """A view (..., tokens, channels) as the heads of a tensor.

    Returns:
        (tensor, first channel, channels from head to head), the number of heads, channels of a head, and the order of
        images and heads in the leading dimensions.
    """
    tensor = lowering.tensor(view)
    *leading, tokens, channels = view.dims
    outer = coalesced([component for dim in leading for component in dim])
    across = [component for component in outer if component.axis == "c"]
    order = tuple(str(component.axis) for component in outer)
    size = channels[0].size if channels else 1
    if (
        tokens != coalesced([Component(tensor.pixels, "p", 1)])
        or channels not in ((), (Component(size, "c", 1),))
        or len(across) > 1
        or sorted(order) != sorted(["b", *("c" for _ in across)])
    ):
        raise NotCovered(
            f"multiplies shape {view.shape}: expected attention, with images and heads, then pixels and channels of a "
            "head side by side"
        )
    count, stride = (across[0].size, across[0].stride) if across else (1, size)
    return (view.tensor, view.first, stride), count, size, order


def attention(lowering: Lowering, scores: Scores, v: View) -> View:
    """softmax(factor * q k^T) v."""
    if not scores.normalized or scores.swapped:
        raise NotCovered("multiplies attention scores that are no softmax over the keys by a tensor")
    found = [heads(lowering, view) for view in (scores.q, scores.k, v)]
    tensors = [lowering.program.tensors[part[0]] for part, *_ in found]
    if len({tuple(rest) for _, *rest in found}) > 1 or len({(one.height, one.width) for one in tensors}) > 1:
        raise NotCovered("is attention whose queries, keys and values differ in heads, channels or pixels")
    (q, count, size, _), (k, *_), (v_heads, *_) = found
    first = tensors[0]
    out = lowering.emit(
        Tensor(count * size, first.height, first.width),
        lambda out: Attention(q=q, k=k, v=v_heads, out=out, heads=count, head_channels=size, scale=scores.factor),
    )
    step = v_heads[2]

    def moved(dim: Dim) -> Dim:
        return coalesced([part if part.axis == "b" else Component(part.size, "c", size) for part in dim])

    assert count == 1 or step == components(View(0, v.dims[:-2]), "c")[0].stride
    dims = (*(moved(dim) for dim in v.dims[:-2]), v.dims[-2], coalesced([Component(size, "c", 1)]))
    return View(out.tensor, dims)


@lowers("Attention")
def attention_node(lowering: Lowering, node: Node) -> Value:
    """Attention as one node (opset 23): (batch, heads, tokens, channels), or (batch, tokens, heads * channels)."""
    if any(value is not None for value in node.inputs[3:]) or node.outputs > 1:
        raise NotCovered("has a mask, a cache or several outputs")
    if node.attributes.get("is_causal", 0) or node.attributes.get("softcap", 0.0):
        raise NotCovered("is causal or capped")
    views = [lowering.view(value) for value in node.inputs[:3]]
    flat = len(views[0].dims) == 3
    if flat:
        counts = [node.attributes.get(name, 1) for name in ("q_num_heads", "kv_num_heads", "kv_num_heads")]
        views = [
            view.reshape([*view.shape[:2], count, view.shape[2] // count]).transpose([0, 2, 1, 3])
            for view, count in zip(views, counts, strict=True)
        ]
    q, k, v = views
    factor = node.attributes.get("scale") or 1.0 / float(np.sqrt(q.shape[-1]))
    out = attention(lowering, Scores(q, k, float(factor), normalized=True), v)
    if flat:
        out = out.transpose([0, 2, 1, 3])
        out = out.reshape([*out.shape[:2], out.shape[2] * out.shape[3]])
    return out


@lowers("Einsum")
def einsum(lowering: Lowering, node: Node) -> Value:
    """A product of two tensors with one summed index, as a matmul of transposed ones."""
    text = node.attributes["equation"]
    text = (text.decode() if isinstance(text, bytes) else text).replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or any(letter not in string.ascii_letters for letter in "".join([*terms, out])):
        raise NotCovered(f"is {text!r}, expected a product of two tensors")
    (one, other), (a, b) = terms, node.inputs
    summed = [letter for letter in one if letter in other and letter not in out]
    batch = [letter for letter in one if letter in other and letter in out]
    rows, columns = ([letter for letter in term if letter not in summed + batch] for term in terms)
    if len(summed) != 1 or len(rows) != 1 or len(columns) != 1 or sorted(out) != sorted([*batch, *rows, *columns]):
        raise NotCovered(f"is {text!r}, which is no matrix product")
    result = product(
        lowering,
        permuted(a, [one.index(letter) for letter in [*batch, *rows, *summed]]),
        permuted(b, [other.index(letter) for letter in [*batch, *summed, *columns]]),
    )
    found = [*batch, *rows, *columns]
    return permuted(result, [found.index(letter) for letter in out])


def permuted(value: Value | None, order: list[int]) -> Value:
    """A view, constant or scores with dimensions in another order."""
    if isinstance(value, np.ndarray):
        return np.transpose(value, order)
    if isinstance(value, View):
        return value.transpose(order)
    if isinstance(value, Scores):
        rank = len(shape_of(value))
        if order == list(range(rank)):
            return value
        if order == [*range(rank - 2), rank - 1, rank - 2]:
            return replace(value, swapped=not value.swapped)
    raise NotCovered(f"transposes {'nothing' if value is None else describe(value)}")
