"""Any denoiser as an ONNX file: what it is called inside is found or told, the rest of the plan is told by options."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import onnx
from pysdk.export.network import Network
from pysdk.export.onnx_options import OnnxOptions, parse_options
from pysdk.export.onnx_probe import probe
from pysdk.export.onnx_surgery import TimeShape, Wiring, adapt, close, dimensions, element_type, inputs, read_model

from pysdk.edm import EdmSchedule
from pysdk.errors import CheckpointError, OptionError
from pysdk.levels import EDM_STEPS
from pysdk.manifest import ClipInfo, DefaultsInfo, EdmInfo, ModelInfo, ScheduleInfo

_TIME_NAMES = frozenset({"t", "time", "times", "timestep", "timesteps", "time_step", "noise_level"})
_SIGMA_NAMES = frozenset({"sigma", "sigmas", "noise_labels", "c_noise"})
_LABEL_NAMES = frozenset({"y", "label", "labels", "class_label", "class_labels", "classes"})
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
_MANY_CHANNELS = 4
"""An axis longer than this is not taken for channels unless --layout says so."""


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
    wiring = find_wiring(proto, told)
    shape = find_shape(proto, wiring, told)
    adapted = adapt(proto, wiring, shape)
    channels = probe(adapted, weights, shape, told, repr(source))
    if (channels != shape[0]) != (told.variance_type == "learned_range"):
        raise OptionError(
            f"--variance_type is {told.variance_type}, but the network returns {channels} channels for images of "
            f"{shape[0]}; learned_range is for twice as many"
        )
    model = ModelInfo(
        name=told.name,
        shape=shape,
        out_channels=channels,
        prediction_type=told.prediction_type,  # type: ignore[arg-type]  # checked by parse_options
        variance_type=told.variance_type,  # type: ignore[arg-type]
        whole_timesteps=_is(inputs(proto)[wiring.t], _INTEGERS),
        num_classes=told.num_classes,
        null_label=told.null_label,
        parameters=sum(math.prod(tensor.dims) for tensor in proto.graph.initializer),
        description="Imported from an ONNX file.",
    )
    clip = ClipInfo() if told.clip_sample else ClipInfo(kind="none")
    if isinstance(told.schedule, EdmSchedule):
        schedule = ScheduleInfo(name=told.schedule_name, edm=EdmInfo(**asdict(told.schedule)))
        defaults = DefaultsInfo(solver="heun", steps=EDM_STEPS, clip=clip)
    else:
        schedule = ScheduleInfo(name=told.schedule_name, betas=tuple(told.schedule.betas.tolist()))
        defaults = DefaultsInfo(solver="ddim", steps=min(50, len(told.schedule)), clip=clip)
    return Network(None, model, schedule, defaults, onnx=close(adapted, (channels, *shape[1:]), weights))


def find_wiring(proto: onnx.ModelProto, told: OnnxOptions) -> Wiring:
    """Which inputs and output are which: by option, else by rank and dtype, else by usual names.

    Raises:
        CheckpointError: there is no such set of inputs.
        OptionError: several could be meant, or an option names none.
    """
    free = inputs(proto)
    for option, name in (("x_name", told.x_name), ("t_name", told.t_name), ("label_name", told.label_name)):
        if name is not None and name not in free:
            raise OptionError(f"--{option} is {name!r}, but the graph's inputs are {sorted(free)}")
    images = [name for name, value in free.items() if len(dimensions(value)) == 4 and _is(value, _FLOATS)]
    x = told.x_name or _only("x_name", images, "floating-point inputs with four axes")
    if len(dimensions(free[x])) != 4:
        raise CheckpointError(
            f"input {x!r} has {len(dimensions(free[x]))} axes, expected (batch, C, H, W) or channels last"
        )
    others = [name for name in free if name != x]
    label = told.label_name
    if label is None and told.num_classes is not None:
        named = [name for name in others if name.lower() in _LABEL_NAMES and name != told.t_name]
        whole = [name for name in others if _is(free[name], _INTEGERS) and name != told.t_name]
        label = _only("label_name", named if len(named) == 1 else whole, "inputs that could be the label")
    rest = [name for name in others if name != label]
    usual = _SIGMA_NAMES | _TIME_NAMES if isinstance(told.schedule, EdmSchedule) else _TIME_NAMES
    named = [name for name in rest if name.lower() in usual]
    t = told.t_name or _only("t_name", named if len(named) == 1 else rest, "inputs that could be the timestep")
    extra = [name for name in rest if name != t]
    if extra and told.num_classes is None and any(name.lower() in _LABEL_NAMES for name in extra):
        raise OptionError(f"the graph has an input {extra[0]!r}: say --num_classes, and --label_name if it is not that")
    if extra:
        raise CheckpointError(
            f"the graph needs {extra}, which a chain does not have: its inputs are the image, the timestep and a label"
        )
    outputs = [value.name for value in proto.graph.output]
    if told.output_name is not None and told.output_name not in outputs:
        raise OptionError(f"--output_name is {told.output_name!r}, but the graph's outputs are {outputs}")
    output = told.output_name or _only("output_name", outputs, "outputs")
    times = _FLOATS if isinstance(told.schedule, EdmSchedule) else _FLOATS + _INTEGERS
    for name, kinds in ((x, _FLOATS), (t, times), (label, _INTEGERS)):
        if name is not None and not _is(free[name], kinds):
            kind = onnx.TensorProto.DataType.Name(element_type(free[name]))
            raise CheckpointError(f"input {name!r} is {kind}, which cannot be what it is taken for")
    channels_last, time_shape = _channels_last(free[x], told), _time_shape(free[t], told)
    return Wiring(x, t, label, output, channels_last, time_shape)


def find_shape(proto: onnx.ModelProto, wiring: Wiring, told: OnnxOptions) -> tuple[int, int, int]:
    """(C, H, W) of an image, from the graph where it says so, the rest from --shape."""
    found = dimensions(inputs(proto)[wiring.x])
    if isinstance(found[0], int):
        raise CheckpointError(
            f"input {wiring.x!r} has a fixed batch of {found[0]}; export it with a dynamic batch axis "
            "(dynamic_shapes or dynamic_axes of torch.onnx.export)"
        )
    axes = [found[3], found[1], found[2]] if wiring.channels_last else found[1:]
    shape = tuple(size if isinstance(size, int) else None for size in axes)
    if told.shape is None:
        if None in shape:
            raise OptionError(f"the sizes of input {wiring.x!r} are {found}; say --shape C,H,W")
        return shape  # type: ignore[return-value]
    if any(size not in (None, given) for size, given in zip(shape, told.shape, strict=True)):
        raise OptionError(f"--shape is {told.shape}, but the graph has {shape}")
    return told.shape


def _channels_last(value: onnx.ValueInfoProto, told: OnnxOptions) -> bool:
    if told.layout is not None:
        return told.layout == "nhwc"
    found = dimensions(value)
    first, last = (isinstance(size, int) and size <= _MANY_CHANNELS for size in (found[1], found[3]))
    if first == last:
        raise OptionError(f"input {value.name!r} has shape {found}, either layout; say --layout nchw or nhwc")
    return last


def _time_shape(value: onnx.ValueInfoProto, told: OnnxOptions) -> TimeShape:
    found = dimensions(value)
    if told.t_shape is not None:
        return told.t_shape
    if len(found) > 1:
        raise CheckpointError(f"input {value.name!r} has shape {found}, expected a scalar, (1,) or (batch,)")
    if not found:
        return "scalar"
    return "one" if found[0] == 1 else "batch"


def _is(value: onnx.ValueInfoProto, kinds: tuple[int, ...]) -> bool:
    return element_type(value) in kinds


def _only(option: str, names: list[str], what: str) -> str:
    if len(names) != 1:
        raise OptionError(f"the graph has {len(names)} {what}: {names}; say --{option}")
    return names[0]
