"""The gradient of a classifier as a graph: d log p(label | x, t) / dx, traced through autograd and lowered to ONNX.

ONNX Runtime has no backward pass, so the one of torch is written out in forward operators: what core ATen does not
already express so is in `BACKWARD`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from pysdk.errors import ExportError
from pysdk.export.lowering.torch_to_onnx import OPSET, quiet

aten = torch.ops.aten


def log_probability_gradient(classifier: nn.Module, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """d log softmax(classifier(x, t))[label] / dx of each image by autograd, of x's shape (2105.05233, section 4.1)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        log_p = F.log_softmax(classifier(x, t), dim=1).gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(log_p, x)
    return gradient


def export_gradient(classifier: nn.Module, shape: Sequence[int], num_classes: int) -> bytes:
    """An ONNX file with inputs x (batch, C, H, W), t (1,), label (batch,) and `output` (batch, C, H, W).

    Args:
        classifier: forward(x, t) -> logits (batch, classes), in evaluation mode on the CPU. It must not turn the batch
            size into a plain number (`x.shape[0]` is fine, `len(x)` is not).
        shape: (C, H, W).
        num_classes: number of logits.

    Raises:
        ExportError: the classifier has another number of logits, or its backward pass has no such form.
    """
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)  # otherwise the graph would make their gradients too
    generator = torch.Generator().manual_seed(0)
    # the trace takes sizes that are equal for one and the same, so the batch is like no other
    size = next(number for number in (5, 7, 11, 13) if number not in shape)
    inputs = (
        torch.randn(size, *shape, generator=generator),
        torch.ones(1),
        torch.randint(num_classes, (size,), generator=generator),
    )
    with torch.no_grad():
        logits = classifier(inputs[0], inputs[1])
    if tuple(logits.shape) != (size, num_classes):
        found = f"{tuple(logits.shape)} for {size} images"
        raise ExportError(f"the classifier returns {found}, expected ({size}, {num_classes})")

    def gradient(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return log_probability_gradient(classifier, x, t, label)

    batch = torch.export.Dim("batch", min=1, max=65_536)
    try:
        # the fused attention kernels have no backward pass in simple operators
        with quiet(), sdpa_kernel(SDPBackend.MATH):
            trace = make_fx(
                gradient,
                decomposition_table={**core_aten_decompositions(), **BACKWARD},
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )
            graph = trace(*inputs)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            with torch.no_grad():
                program = torch.onnx.export(
                    graph,
                    inputs,
                    dynamo=True,
                    opset_version=OPSET,
                    input_names=["x", "t", "label"],
                    output_names=["output"],
                    dynamic_shapes=({0: batch}, None, {0: batch}),
                    verbose=False,
                )
    except (torch.onnx.OnnxExporterError, torch._dynamo.exc.UserError, NotImplementedError) as error:
        raise ExportError(
            f"the gradient of the classifier cannot be lowered: {' '.join(str(error).split())}"
        ) from error
    if program is None:  # the signature allows it, for exports to a path
        raise ExportError("torch.onnx.export returned nothing")
    return bytes(program.model_proto.SerializeToString())


def _convolution(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> tuple[Tensor, None, None]:
    """The gradient of a convolution's input is the transposed convolution."""
    if transposed or list(output_mask) != [True, False, False]:
        raise NotImplementedError("only the input of an ordinary convolution can have a gradient")
    sizes = zip(x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    rest = [int(i) - ((int(o) - 1) * s - 2 * p + d * (int(k) - 1) + 1) for i, o, k, s, p, d in sizes]
    return aten.convolution(grad, weight, None, stride, padding, dilation, True, rest, groups), None, None


def _average_pool(
    grad: Tensor,
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Every pixel of a tile gets an equal share."""
    height, width = kernel[0], kernel[-1]
    _, _, rows, columns = grad.shape
    tiles = list(stride or kernel) == list(kernel) and not any(padding) and divisor is None
    if not tiles or (rows * height, columns * width) != tuple(x.shape[2:]):
        raise NotImplementedError("average pooling can have a gradient if its tiles cover the image without overlap")
    share = (grad / (height * width)).reshape(*grad.shape[:2], rows, 1, columns, 1)
    return share.expand(*grad.shape[:2], rows, height, columns, width).reshape(x.shape)


BACKWARD: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.avg_pool2d_backward.default: _average_pool,
}
"""Backward operators that core ATen keeps whole, in forward ones."""
