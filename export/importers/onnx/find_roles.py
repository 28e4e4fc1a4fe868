"""Finds which tensors of a foreign network are a denoiser's: by option, else by rank and dtype, else by usual names."""

from __future__ import annotations

from collections.abc import Sequence

from pysdk.diffusion.edm import EdmSchedule
from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.onnx.options import OnnxOptions
from pysdk.export.lowering.tensor_roles import Port, TensorRoles, TimeShape

_TIME_NAMES = frozenset({"t", "time", "times", "timestep", "timesteps", "time_step", "noise_level"})
_SIGMA_NAMES = frozenset({"sigma", "sigmas", "noise_labels", "c_noise"})
_LABEL_NAMES = frozenset({"y", "label", "labels", "class_label", "class_labels", "classes"})
_FLOATS = ("float32", "float16", "float64")
INTEGERS = ("int64", "int32")
_MANY_CHANNELS = 4
"""An axis longer than this is not taken for channels unless --layout says so."""


def find_roles(inputs: Sequence[Port], outputs: Sequence[str], told: OnnxOptions) -> TensorRoles:
    """Which inputs and which of these outputs are which.

    Raises:
        CheckpointError: there is no such set of inputs.
        OptionError: several could be meant, or an option names none.
    """
    free = {port.name: port for port in inputs}
    for option, name in (("x_name", told.x_name), ("t_name", told.t_name), ("label_name", told.label_name)):
        if name is not None and name not in free:
            raise OptionError(f"--{option} is {name!r}, but the network's inputs are {sorted(free)}")
    images = [name for name, port in free.items() if len(port.shape) == 4 and port.dtype in _FLOATS]
    x = told.x_name or _only("x_name", images, "floating-point inputs with four axes")
    if len(free[x].shape) != 4:
        raise CheckpointError(f"input {x!r} has {len(free[x].shape)} axes, expected (batch, C, H, W) or channels last")
    others = [name for name in free if name != x]
    label = told.label_name
    if label is None and told.num_classes is not None:
        named = [name for name in others if name.lower() in _LABEL_NAMES and name != told.t_name]
        whole = [name for name in others if free[name].dtype in INTEGERS and name != told.t_name]
        label = _only("label_name", named if len(named) == 1 else whole, "inputs that could be the label")
    rest = [name for name in others if name != label]
    usual = _SIGMA_NAMES | _TIME_NAMES if isinstance(told.schedule, EdmSchedule) else _TIME_NAMES
    named = [name for name in rest if name.lower() in usual]
    t = told.t_name or _only("t_name", named if len(named) == 1 else rest, "inputs that could be the timestep")
    extra = [name for name in rest if name != t]
    if extra and told.num_classes is None and any(name.lower() in _LABEL_NAMES for name in extra):
        raise OptionError(
            f"the network has an input {extra[0]!r}: say --num_classes, and --label_name if it is not that"
        )
    if extra:
        raise CheckpointError(
            f"the network needs {extra}, which a chain does not have: its inputs are image, timestep and label"
        )
    if told.output_name is not None and told.output_name not in outputs:
        raise OptionError(f"--output_name is {told.output_name!r}, but the network's outputs are {list(outputs)}")
    output = told.output_name or _only("output_name", list(outputs), "outputs")
    times = _FLOATS if isinstance(told.schedule, EdmSchedule) else _FLOATS + INTEGERS
    for name, kinds in ((x, _FLOATS), (t, times), (label, INTEGERS)):
        if name is not None and free[name].dtype not in kinds:
            raise CheckpointError(f"input {name!r} is {free[name].dtype}, which cannot be what it is taken for")
    return TensorRoles(x, t, label, output, _channels_last(free[x], told), _time_shape(free[t], told))


def find_shape(x: Port, roles: TensorRoles, told: OnnxOptions) -> tuple[int, int, int]:
    """(C, H, W) of an image, from the network's input where it says so, the rest from --shape."""
    _, first, second, third = x.shape
    axes = (third, first, second) if roles.channels_last else (first, second, third)
    shape = tuple(size if isinstance(size, int) else None for size in axes)
    if told.shape is None:
        if None in shape:
            raise OptionError(f"the sizes of input {x.name!r} are {list(x.shape)}; say --shape C,H,W")
        return shape  # type: ignore[return-value]
    if any(size not in (None, given) for size, given in zip(shape, told.shape, strict=True)):
        raise OptionError(f"--shape is {told.shape}, but the network has {shape}")
    return told.shape


def _channels_last(x: Port, told: OnnxOptions) -> bool:
    if told.layout is not None:
        return told.layout == "nhwc"
    first, last = (isinstance(size, int) and size <= _MANY_CHANNELS for size in (x.shape[1], x.shape[3]))
    if first == last:
        raise OptionError(f"input {x.name!r} has shape {list(x.shape)}, either layout; say --layout nchw or nhwc")
    return last


def _time_shape(t: Port, told: OnnxOptions) -> TimeShape:
    if told.t_shape is not None:
        return told.t_shape
    if len(t.shape) > 1:
        raise CheckpointError(f"input {t.name!r} has shape {list(t.shape)}, expected a scalar, (1,) or (batch,)")
    if not t.shape:
        return "scalar"
    return "one" if t.shape[0] == 1 else "batch"


def _only(option: str, names: list[str], what: str) -> str:
    if len(names) != 1:
        raise OptionError(f"the network has {len(names)} {what}: {names}; say --{option}")
    return names[0]
