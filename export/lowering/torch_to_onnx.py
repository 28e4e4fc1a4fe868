"""torch -> ONNX, checked against torch over every timestep."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx
import torch

from pysdk.errors import ExportError
from pysdk.export.lowering import onnx_files
from pysdk.export.lowering.onnx_files import OnnxFiles
from pysdk.export.network import Network

OPSET = 18
"""The newest opset whose GroupNorm form ONNX Runtime runs fast: 21 and 23 keep the operator whole, which its CPU
kernels take apart again, 1.3 to 2 times slower (measured on the shipped network)."""

MAX_RELATIVE_ERROR = 1e-4
"""Largest allowed |ONNX - torch| / max |torch|, over all timesteps."""

_CHUNK = 25
_CHUNK_PIXELS = 1 << 16


def example_inputs(network: Network, batch: int) -> tuple[torch.Tensor, ...]:
    """Random x, one t and random labels (if the network takes them) for `batch` images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, *network.model.shape, generator=generator)
    t = torch.full((1,), network.schedule.timesteps // 2, dtype=torch.float32)
    if network.model.num_classes is None:
        return x, t
    return x, t, torch.randint(network.model.num_classes, (batch,), generator=generator)


def export_onnx(network: Network) -> OnnxFiles:
    """The network as ONNX: inputs x (batch, C, H, W), t (1,) and label (batch,), output `output`.

    Raises:
        ExportError: there is no room for the weights of a large network while the plan is built.
    """
    if network.module is None:
        if network.onnx is None:
            raise ExportError("the importer returned neither a torch module nor an ONNX file")
        return network.onnx
    inputs = example_inputs(network, 2)
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = {"x": {0: batch}, "t": None, "label": {0: batch}}
    names = ["x", "t", "label"][: len(inputs)]
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["output"],
            dynamic_shapes={name: shapes[name] for name in names},
            verbose=False,
        )
        if program is None:  # the signature allows it, for exports to a path
            raise ExportError("torch.onnx.export returned nothing")
        tensors = (value.const_value for value in program.model.graph.initializers.values())
        if onnx_files.is_large(sum(tensor.nbytes for tensor in tensors if tensor is not None)):
            return onnx_files.from_module(program.model, without_traces)
        proto = program.model_proto
    return OnnxFiles(bytes(without_traces(proto).SerializeToString()))


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without what tells of this machine: notes on nodes hold stack traces with its paths."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    model.producer_version = model.producer_version.partition("+")[0]  # not whether torch was built for a GPU
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages it could have used and on its own internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@dataclass(frozen=True)
class Comparison:
    """How far an engine is from torch.

    Attributes:
        max_abs_error: largest |engine - torch| over all timesteps.
        max_abs: largest |torch|.
    """

    max_abs_error: float
    max_abs: float

    @property
    def relative(self) -> float:
        """max_abs_error / max_abs."""
        return self.max_abs_error / max(self.max_abs, 1e-30)


def torch_outputs(
    network: Network, timesteps: Iterable[int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]]:
    """x (1, C, H, W), t (1,), label (1,) or None and torch's output (1, out, H, W), for each of some timesteps."""
    if network.module is None:
        raise ExportError("the network is an ONNX file: there is no torch module to compare with")
    generator = torch.Generator().manual_seed(1)
    _, height, width = network.model.shape
    chunk = max(1, min(_CHUNK, _CHUNK_PIXELS // (height * width)))
    labels = (
        None
        if network.model.num_classes is None
        else network.model.num_classes + (network.model.null_label == network.model.num_classes)
    )
    remaining = iter(timesteps)
    while some := list(islice(remaining, chunk)):
        t = torch.tensor(some, dtype=torch.float32)
        x = torch.randn(len(t), *network.model.shape, generator=generator)
        label = None if labels is None else torch.randint(labels, (len(t),), generator=generator)
        with torch.no_grad():
            y = network.module(x, t) if label is None else network.module(x, t, label)
        for i in range(len(t)):
            one = slice(i, i + 1)
            yield x[one], t[one], None if label is None else label[one], y[one]


def check_finite(output: np.ndarray, t: float) -> None:
    """ExportError if the network itself returns NaN or infinity."""
    if not np.isfinite(output).all():
        raise ExportError(
            f"the torch network returns NaN or infinity at t = {t:g} on random input; it cannot be shipped"
        )
