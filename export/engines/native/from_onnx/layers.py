"""Convolutions, linear layers, group norms and resampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.export.engines.native.from_onnx.lowering import Lowering, Node, evaluate, lowers
from pysdk.export.engines.native.from_onnx.values import Bordered, Value, describe
from pysdk.export.engines.native.from_onnx.views import Component, View, coalesced, components, covers, map_view
from pysdk.export.engines.native.program import Conv, GroupNorm, Linear, NotCovered, Pool, Tensor, Upsample

KERNELS = (1, 3, 5)
"""Sizes of a convolution's kernel."""


@lowers("Conv")
def conv(lowering: Lowering, node: Node) -> Value:
    """A convolution of images, or of sequences with kernels of 1."""
    value, weight = node.inputs[0], node.constant(1, "weight")
    bias = node.constant(2, "bias") if len(node.inputs) > 2 and node.inputs[2] is not None else None
    flat = weight.ndim == 3
    if flat:
        weight = weight[..., None]
    kernel = weight.shape[2:]
    strides, dilations = (set(node.attributes.get(name, [1])) for name in ("strides", "dilations"))
    if node.attributes.get("group", 1) != 1:
        raise NotCovered(f"has {node.attributes['group']} groups, expected 1")
    if dilations != {1} or strides not in ({1}, {2}):
        raise NotCovered(f"has strides {sorted(strides)} and dilations {sorted(dilations)}, expected 1 or 2, and 1")
    if kernel[0] not in KERNELS or kernel[0] != kernel[1]:
        raise NotCovered(f"has a kernel of {kernel}, expected a square of {', '.join(map(str, KERNELS))}")
    inner = value.x if isinstance(value, Bordered) else value
    x = lowering.as_map(inner)
    tensor, view = lowering.program.tensors[x], lowering.view(inner)
    if tensor.channels != weight.shape[1]:
        raise NotCovered(f"has weights for {weight.shape[1]} channels, but reads {tensor.channels}")
    stride = strides.pop()
    border = value.pads if isinstance(value, Bordered) else (0, 0, 0, 0)
    given = pads(node, (tensor.height, tensor.width), kernel[0], stride)
    pad = tuple(a + b for a, b in zip(border, given, strict=True))
    height, width = (
        (size + before + after - kernel[0]) // stride + 1
        for size, before, after in zip((tensor.height, tensor.width), pad[:2], pad[2:], strict=True)
    )
    if min(height, width) < 1:
        raise NotCovered(f"has a kernel of {kernel} on {tensor.height}x{tensor.width} pixels")
    out = convolved(lowering, x, weight, bias, Tensor(weight.shape[0], height, width, tensor.shared), stride, pad)
    whole = map_view(out.tensor, lowering.tensor(out))
    if flat:
        whole = whole.reshape([*whole.shape[:2], height * width])
    return View(out.tensor, (view.dims[0], *whole.dims[1:]))


def convolved(
    lowering: Lowering,
    x: int,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    result: Tensor,
    stride: int = 1,
    pad: tuple[int, ...] = (0, 0, 0, 0),
) -> View:
    """A new convolution of the tensor `x`."""
    weight_index = lowering.weight(weight)
    bias_index = None if bias is None else lowering.weight(bias)
    return lowering.emit(
        result,
        lambda out: Conv(
            x=(x,),
            out=out,
            weight=weight_index,
            bias=bias_index,
            stride=stride,
            pads=pad,  # type: ignore[arg-type]
            upsample=1,
            tactic="direct",
        ),
    )


def pads(node: Node, sizes: tuple[int, int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) of a convolution or pooling."""
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        missing = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in sizes]
        small, large = [size // 2 for size in missing], [size - size // 2 for size in missing]
        before, after = (small, large) if automatic == b"SAME_UPPER" else (large, small)
        return (before[0], before[1], after[0], after[1])
    given = node.attributes.get("pads", [0, 0, 0, 0]) if automatic == b"NOTSET" else [0, 0, 0, 0]
    if len(given) == 2:
        given = [given[0], 0, given[1], 0]
    top, left, bottom, right = given
    return (top, left, bottom, right)


@lowers("Gemm")
def gemm(lowering: Lowering, node: Node) -> Value:
    """alpha * x W^T + beta * c."""
    weight = node.constant(1, "weight").astype(np.float32) * np.float32(node.attributes.get("alpha", 1.0))
    if node.attributes.get("transA", 0):
        raise NotCovered("transposes its first input")
    weight = weight if node.attributes.get("transB", 0) else weight.T
    bias = None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = node.constant(2, "bias") * np.float32(node.attributes.get("beta", 1.0))
        if bias.size not in (1, len(weight)):
            raise NotCovered(f"adds a constant of shape {bias.shape}, expected one for each of {len(weight)} channels")
        bias = np.broadcast_to(bias.ravel(), (len(weight),))
    return dense(lowering, lowering.view(node.inputs[0]), weight, bias)


def dense(lowering: Lowering, view: View, weight: NDArray[Any], bias: NDArray[Any] | None = None) -> View:
    """The linear layer `weight` (O, I) on the last dimension of vectors, or of a map's pixels."""
    tensor = lowering.tensor(view)
    channels = coalesced([Component(tensor.channels, "c", 1)])
    if not covers(view, tensor) or view.dims[-1] != channels or weight.shape[1] != tensor.channels:
        raise NotCovered(
            f"multiplies the last dimension of shape {view.shape} by {weight.shape[1]} weights for each output, but it "
            f"is not all {tensor.channels} channels of a tensor"
        )
    result = Tensor(len(weight), tensor.height, tensor.width, tensor.shared)
    if tensor.pixels == 1:
        source, weight_index = view.tensor, lowering.weight(weight)
        bias_index = None if bias is None else lowering.weight(bias)
        out = lowering.emit(result, lambda out: Linear(x=source, out=out, weight=weight_index, bias=bias_index))
    else:
        out = convolved(lowering, view.tensor, weight[:, :, None, None], bias, result)
    return View(out.tensor, (*view.dims[:-1], coalesced([Component(len(weight), "c", 1)])))


@lowers("InstanceNormalization")
def instance_norm(lowering: Lowering, node: Node) -> Value:
    """Normalization of what a view shows as (batch, groups, ...): the middle of how GroupNorm is exported."""
    view = lowering.view(node.inputs[0])
    tensor = lowering.tensor(view)
    gain, offset = node.constant(1, "scale"), node.constant(2, "B")
    groups = view.shape[1]
    size = tensor.channels // groups
    by_group = View(view.tensor, view.dims[2:])
    if (
        not covers(view, tensor)
        or view.dims[1] != coalesced([Component(groups, "c", size)])
        or components(by_group, "b")
        or components(by_group, None)
    ):
        raise NotCovered(f"normalizes shape {view.shape}, whose second dimension is not groups of channels")
    out = normalized(lowering, view.tensor, groups, node, np.repeat(gain, size), np.repeat(offset, size))
    return View(out.tensor, view.dims)


@lowers("GroupNormalization")
def group_norm(lowering: Lowering, node: Node) -> Value:
    """GroupNorm as one node; before opset 21 it had a gain for each group."""
    view = lowering.view(node.inputs[0])
    tensor = lowering.tensor(view)
    groups = node.attributes["num_groups"]
    affine = [node.constant(1, "scale"), node.constant(2, "bias")]
    if node.opset < 21:
        affine = [np.repeat(values, tensor.channels // groups) for values in affine]
    if not covers(view, tensor) or view.dims[1] != coalesced([Component(tensor.channels, "c", 1)]):
        raise NotCovered(f"normalizes shape {view.shape}, whose second dimension is not all channels")
    out = normalized(lowering, view.tensor, groups, node, *affine)
    return View(out.tensor, view.dims)


def normalized(lowering: Lowering, x: int, groups: int, node: Node, gamma: NDArray[Any], beta: NDArray[Any]) -> View:
    """A new group norm of the tensor `x`."""
    gamma_index, beta_index = lowering.weight(gamma), lowering.weight(beta)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return lowering.emit(
        lowering.program.tensors[x],
        lambda out: GroupNorm(
            x=(x,), out=out, groups=groups, epsilon=epsilon, gamma=gamma_index, beta=beta_index, silu=False
        ),
    )


@lowers("AveragePool", "Resize", "Upsample")
def resample(lowering: Lowering, node: Node) -> Value:
    """Means of 2 x 2 pixels, or every pixel 2 x 2 times: what the node does is tried on numbers."""
    view = lowering.view(node.inputs[0])
    x = lowering.as_map(view)
    tensor = lowering.program.tensors[x]
    height, width = tensor.height, tensor.width
    if any(value is not None and not isinstance(value, np.ndarray) for value in node.inputs[1:]):
        raise NotCovered(f"has a size that depends on {describe(node.inputs[-1])}")  # type: ignore[arg-type]
    if node.kind == "AveragePool":
        averages(node)
        result = Tensor(tensor.channels, height // 2, width // 2, tensor.shared)
        out = lowering.emit(result, lambda out: Pool(x=x, out=out), ("pool", x))
    else:
        doubles(node, view.shape)
        result = Tensor(tensor.channels, 2 * height, 2 * width, tensor.shared)
        out = lowering.emit(result, lambda out: Upsample(x=x, out=out), ("upsample", x))
    return View(out.tensor, (view.dims[0], *map_view(out.tensor, result).dims[1:]))


def averages(node: Node) -> None:
    """NotCovered unless the pooling takes the mean of 2 x 2 pixels."""
    trial = np.random.default_rng(0).standard_normal((1, 1, 6, 8)).astype(np.float32)
    (found,) = evaluate(node, [trial])
    expected = trial.reshape(1, 1, 3, 2, 4, 2).mean((3, 5))
    if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-6):
        raise NotCovered("is no mean of 2 x 2 pixels")


def doubles(node: Node, shape: tuple[int, ...]) -> None:
    """NotCovered unless the resizing repeats every pixel 2 x 2 times."""
    trial = np.random.default_rng(0).standard_normal((1, 1, 3, 4)).astype(np.float32)
    constants: list[Any] = list(node.inputs[1:])
    sizes = constants[2] if len(constants) > 2 else None
    if sizes is not None:
        if [int(size) for size in sizes] != [*shape[:2], 2 * shape[2], 2 * shape[3]]:
            raise NotCovered(f"resizes {shape} to {[int(size) for size in sizes]}, expected twice the height and width")
        constants[2] = np.array([1, 1, 6, 8], np.int64)
    (found,) = evaluate(node, [trial, *constants])
    expected = trial.repeat(2, 2).repeat(2, 3)
    if found.shape != expected.shape or (found != expected).any():
        raise NotCovered("does not repeat every pixel 2 x 2 times")
