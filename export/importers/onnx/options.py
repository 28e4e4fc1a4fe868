"""What an ONNX file or a TensorRT engine does not say about itself, as options of its importer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import EDM_STEPS
from pysdk.diffusion.prediction import PREDICTION_TYPES
from pysdk.diffusion.schedule import MAX_TIMESTEPS, SCHEDULES, Schedule, make_schedule
from pysdk.errors import OptionError
from pysdk.export.lowering.tensor_roles import TimeShape
from pysdk.files.array_file import read_npy
from pysdk.plan.manifest import ClipInfo, DefaultsInfo, EdmInfo, ModelInfo, ScheduleInfo

_CHOICES = {
    "layout": ("nchw", "nhwc"),
    "t_shape": ("scalar", "one", "batch"),
    "prediction_type": PREDICTION_TYPES,
    "preconditioning": ("none", "edm", "denoiser"),
    "variance_type": ("fixed_small", "fixed_large", "learned_range"),
    "clip_sample": ("true", "false"),
}
_PRECONDITIONING = {"edm": "edm", "denoiser": "sample"}
"""--preconditioning to the prediction type of a network of sigma."""
_EDM_OPTIONS = ("sigma_min", "sigma_max", "rho", "sigma_data")
_MAX_BETAS = 16 * MAX_TIMESTEPS
"""Bytes of a .npy file."""
_NAMES = ("x_name", "t_name", "label_name", "output_name")
_OWN = (*_NAMES, *_CHOICES, "shape", "num_classes", "null_label", "schedule", "betas", "name")


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """Options of one network; None where the network is to say it.

    Attributes:
        x_name, t_name, label_name, output_name: names in the network.
        layout: "nchw" or "nhwc", of image and output.
        t_shape: "scalar", "one" for (1,) or "batch" for (batch,).
        shape: (C, H, W).
        prediction_type, variance_type, num_classes, null_label, name: see `pysdk.plan.manifest.ModelInfo`.
        schedule, schedule_name: the forward process, or the levels of a network of sigma (--preconditioning).
        clip_sample: whether the denoised estimate is clamped to [-1, 1]; by default it is with timesteps.
    """

    x_name: str | None
    t_name: str | None
    label_name: str | None
    output_name: str | None
    layout: str | None
    t_shape: TimeShape | None
    shape: tuple[int, int, int] | None
    prediction_type: str
    variance_type: str
    num_classes: int | None
    null_label: int | None
    schedule: Schedule | EdmSchedule
    schedule_name: str
    clip_sample: bool
    name: str


def parse_options(options: Mapping[str, str], name: str, what: str = "an ONNX file") -> OnnxOptions:
    """The options of a command line; `name` is what the network is called unless they say, `what` the kind of source.

    Raises:
        OptionError: unknown, missing or of a value that cannot be.
    """
    for option, allowed in _CHOICES.items():
        if option in options and options[option] not in allowed:
            raise OptionError(f"--{option} is {options[option]!r}, expected one of {', '.join(allowed)}")
    of_sigma = _PRECONDITIONING.get(options.get("preconditioning", "none"))
    if of_sigma is not None:
        about_timesteps = sorted({"prediction_type", "variance_type", "schedule", "betas"} & set(options))
        if about_timesteps:
            raise OptionError(
                f"--{about_timesteps[0]} is given with --preconditioning {options['preconditioning']}, whose networks "
                "are told sigma, not a timestep; leave it out"
            )
    _refuse(options, what)
    if of_sigma is None and "prediction_type" not in options:
        raise OptionError(f"--prediction_type is missing; say what the network predicts: {', '.join(PREDICTION_TYPES)}")
    if "null_label" in options and "num_classes" not in options:
        raise OptionError("--null_label is given without --num_classes")
    if "label_name" in options and "num_classes" not in options:
        raise OptionError("--label_name is given without --num_classes")
    shape = _integers("shape", options["shape"]) if "shape" in options else None
    if shape is not None and len(shape) != 3:
        raise OptionError(f"--shape is {options['shape']!r}, expected C,H,W such as 3,32,32")
    num_classes, null_label = (
        _integers(option, options[option])[0] if option in options else None for option in ("num_classes", "null_label")
    )
    if num_classes is not None and num_classes < 1:
        raise OptionError(f"--num_classes is {num_classes}, expected at least 1")
    if null_label is not None and not 0 <= null_label <= (num_classes or 0):
        raise OptionError(f"--null_label is {null_label}, expected 0 to {num_classes}, the number of classes")
    schedule_name, schedule = _schedule(options) if of_sigma is None else ("edm", _edm(options))
    return OnnxOptions(
        **{option: options.get(option) for option in (*_NAMES, "layout", "t_shape")},  # type: ignore[arg-type]
        shape=shape,
        prediction_type=of_sigma or options["prediction_type"],
        variance_type=options.get("variance_type", "fixed_small"),
        num_classes=num_classes,
        null_label=null_label,
        schedule=schedule,
        schedule_name=schedule_name,
        clip_sample=options.get("clip_sample", "true" if of_sigma is None else "false") == "true",
        name=options.get("name", name),
    )


def plan_parts(
    told: OnnxOptions, shape: tuple[int, int, int], channels: int, **of_model: Any
) -> tuple[ModelInfo, ScheduleInfo, DefaultsInfo]:
    """What a plan says of a network that returns `channels` channels for images of `shape`.

    Raises:
        OptionError: that is not what the variance type needs.
    """
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
        num_classes=told.num_classes,
        null_label=told.null_label,
        **of_model,
    )
    clip = ClipInfo() if told.clip_sample else ClipInfo(kind="none")
    if isinstance(told.schedule, EdmSchedule):
        schedule = ScheduleInfo(name=told.schedule_name, edm=EdmInfo(**asdict(told.schedule)))
        return model, schedule, DefaultsInfo(solver="heun", steps=EDM_STEPS, clip=clip)
    schedule = ScheduleInfo(name=told.schedule_name, betas=tuple(told.schedule.betas.tolist()))
    return model, schedule, DefaultsInfo(solver="ddim", steps=min(50, len(told.schedule)), clip=clip)


def _refuse(options: Mapping[str, str], what: str) -> None:
    """OptionError for what is not an option or not possible yet."""
    if options.get("value_range", "-1,1").replace(" ", "") not in ("-1,1", "-1.0,1.0"):
        raise OptionError(
            f"--value_range is {options['value_range']}; only -1,1 can be sampled: images are written from that range"
        )
    own = _EDM_OPTIONS if options.get("preconditioning", "none") != "none" else _schedule_options(options)
    known = {*_OWN, "value_range", *own}
    unknown = sorted(set(options) - known)
    if unknown:
        raise OptionError(f"{what} takes no option --{unknown[0]}; it takes {', '.join(sorted(known))}")


def _schedule_options(options: Mapping[str, str]) -> list[str]:
    name = options.get("schedule")
    return list(inspect.signature(SCHEDULES[name]).parameters) if name in SCHEDULES else []


def _edm(options: Mapping[str, str]) -> EdmSchedule:
    """The levels of a network of sigma; F has sigma_data 0.5 unless told, a whole denoiser none."""
    whole = options["preconditioning"] == "denoiser"
    if whole and "sigma_data" in options:
        raise OptionError("--sigma_data is given, but a whole denoiser does its own preconditioning; leave it out")
    values: dict[str, float | None] = {"sigma_data": None} if whole else {}
    values |= {option: _number(option, options[option]) for option in _EDM_OPTIONS if option in options}
    return EdmSchedule(**values)  # type: ignore[arg-type]  # only sigma_data may be None


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"--{option} is {text!r}, expected a number") from None


def _schedule(options: Mapping[str, str]) -> tuple[str, Schedule]:
    """(name, schedule) from --schedule and its own options, or from --betas."""
    if ("schedule" in options) == ("betas" in options):
        raise OptionError(
            f"say how the network was trained: either --schedule ({', '.join(sorted(SCHEDULES))}) or --betas FILE.npy"
        )
    if "betas" in options:
        path = Path(options["betas"])
        try:
            betas = read_npy(path, _MAX_BETAS, OptionError)
        except OptionError as error:
            raise OptionError(f"--betas: {error}") from None
        return "betas", Schedule.from_betas(betas)
    values: dict[str, Any] = {}
    for option in _schedule_options(options):
        if option not in options:
            continue
        value = options[option]
        values[option] = _integers(option, value)[0] if option == "timesteps" else _number(option, value)
    return options["schedule"], make_schedule(options["schedule"], **values)


def _integers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise OptionError(f"--{name} is {text!r}, expected a whole number, or several with commas") from None
