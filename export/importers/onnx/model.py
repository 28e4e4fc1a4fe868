"""Any denoiser as an ONNX file: its names are found or given, the rest of the plan is given by options."""

from __future__ import annotations

import math
from pathlib import Path

from pysdk.errors import CheckpointError
from pysdk.export.importers.onnx.find_roles import INTEGERS, find_roles, find_shape
from pysdk.export.importers.onnx.options import parse_options, plan_parts
from pysdk.export.importers.onnx.probe import probe
from pysdk.export.lowering.surgery import adapt, close, inputs, read_model
from pysdk.export.network import Network


def matches(source: str) -> bool:
    """Whether `source` is named like an ONNX file."""
    return Path(source).suffix == ".onnx"


def load(source: str, options: dict[str, str]) -> Network:
    """The graph with nodes around it that make it a plan's network, tried on random input in batches of 1 and 3.

    Raises:
        CheckpointError: the file is no usable denoiser.
        OptionError: an option that is unknown, missing, or contradicts the file.
    """
    told = parse_options(options, Path(source).stem)
    proto, weights = read_model(Path(source))
    ports = inputs(proto)
    roles = find_roles(list(ports.values()), [value.name for value in proto.graph.output], told)
    batch = ports[roles.x].shape[0]
    if isinstance(batch, int):
        raise CheckpointError(
            f"input {roles.x!r} has a fixed batch of {batch}; export it with a dynamic batch axis "
            "(dynamic_shapes or dynamic_axes of torch.onnx.export)"
        )
    shape = find_shape(ports[roles.x], roles, told)
    adapted = adapt(proto, roles, shape)
    channels = probe(adapted, weights, shape, told, repr(source))
    model, schedule, defaults = plan_parts(
        told,
        shape,
        channels,
        whole_timesteps=ports[roles.t].dtype in INTEGERS,
        parameters=sum(math.prod(tensor.dims) for tensor in proto.graph.initializer),
        description="Imported from an ONNX file.",
    )
    return Network(None, model, schedule, defaults, onnx=close(adapted, (channels, *shape[1:]), weights))
