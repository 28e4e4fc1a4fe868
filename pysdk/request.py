"""What `Sampler.sample` is asked for, checked and spelled out image by image before anything runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.errors import OptionError, OptionTypeError
from pysdk.manifest import DefaultsInfo, Manifest, ModelInfo
from pysdk.schedule import Schedule
from pysdk.solvers import SOLVERS, make_table, solver_options
from pysdk.table import Clip, StepTable

MAX_IMAGES = 1 << 32
TIMESTEP_OPTIONS = ("spacing", "steps_offset")
"""Options of every solver, see `pysdk.timesteps.make_timesteps`."""

SPREAD_OPTIONS = (*TIMESTEP_OPTIONS, "prev_timestep")
"""Options that say how a number of steps is spread; a plan's own do not apply to timesteps that are listed."""

Noise = NDArray[np.float32] | Callable[[int, NDArray[np.uint64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Request:
    """n images to draw, all arrays of length n.

    Attributes:
        table: the rows to run.
        seeds: uint64, the gallery of each image.
        images: uint64, its index there.
        labels: int64, or None for a network without classes.
        guidance: float32, or None for a chain without guidance.
        noise: replaces the chain's own noise, or None.
        initial: float32 (n, C, H, W), what the chain starts from, or None for noise.
    """

    table: StepTable
    seeds: NDArray[np.uint64]
    images: NDArray[np.uint64]
    labels: NDArray[np.int64] | None
    guidance: NDArray[np.float32] | None
    noise: Noise | None = None
    initial: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.seeds)


def make_request(
    manifest: Manifest,
    schedule: Schedule,
    *,
    n: int,
    seed: int | Sequence[int],
    start: int,
    steps: Any,
    solver: str | StepTable | None,
    labels: object,
    guidance_scale: object,
    noise: Noise | None,
    initial: NDArray[np.float32] | None,
    options: dict[str, Any],
) -> Request:
    """Check the arguments of `Sampler.sample`, which documents them, against a plan."""
    count = whole_number("n", n, 0, MAX_IMAGES)
    first = whole_number("start", start, 0, 2**64 - 1 - count)
    images = np.arange(count, dtype=np.uint64) + np.uint64(first)
    table = resolve_table(manifest, schedule, solver, steps, options)
    check_tensor("initial", initial, (count, *manifest.model.shape))
    if table.init_scale == 0 and initial is None:
        raise OptionError(f"solver {solver!r} has no noise to start from (init_scale 0); give images with initial=")
    if not callable(noise):
        check_tensor("noise", noise, (len(table) + 1, count, *manifest.model.shape))
    return Request(
        table=table,
        seeds=resolve_seeds(seed, count),
        images=images,
        labels=resolve_labels(manifest.model, labels, images),
        guidance=resolve_guidance(
            manifest.model, manifest.defaults.guidance_scale if guidance_scale is None else guidance_scale, count
        ),
        noise=noise,
        initial=initial,
    )


def check_tensor(name: str, array: NDArray[np.float32] | None, shape: tuple[int, ...]) -> None:
    """OptionError unless `array` is None or float32 of `shape`."""
    dtype = getattr(array, "dtype", type(array).__name__)
    found = getattr(array, "shape", ())
    if array is not None and (dtype != np.float32 or found != shape):
        raise OptionError(f"{name} is {dtype} of shape {found}, expected a float32 array of shape {shape}")


def whole_number(name: str, value: object, low: int, high: int) -> int:
    """`value` as an int in [low, high]; OptionTypeError or OptionError names it otherwise."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionTypeError(f"{name} is {value!r}, expected a whole number from {low} to {high}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise OptionError(f"{name} is {value!r}, expected a whole number from {low} to {high}")
    return number


def per_image(name: str, value: object, n: int, dtype: Any) -> NDArray[Any]:
    """One value for all images, or one for each: an array of `dtype` and shape (n,)."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise OptionError(f"{name} is {value!r}, expected one number or {n} of them") from None
    wanted = "a number" if np.dtype(dtype).kind == "f" else "a whole number"
    if array.size and array.dtype.kind not in ("fiu" if np.dtype(dtype).kind == "f" else "iu"):
        raise OptionTypeError(f"{name} has dtype {array.dtype}, expected {wanted} or {n} of them")
    if array.shape not in ((), (n,)):
        raise OptionError(f"{name} has shape {array.shape}, expected {wanted} or one per image, shape ({n},)")
    return np.ascontiguousarray(np.broadcast_to(array, (n,)))


def resolve_seeds(seed: int | Sequence[int], n: int) -> NDArray[np.uint64]:
    """Seeds of n images: one for all or one for each, in [0, 2^64)."""
    if not isinstance(seed, (Sequence, np.ndarray)) or isinstance(seed, str) or np.shape(seed) == ():
        return np.full(n, whole_number("seed", seed, 0, 2**64 - 1), np.uint64)
    values = list(seed)
    if len(values) != n:
        raise OptionError(f"seed has {len(values)} values, expected one number or one per image, {n}")
    return np.array([whole_number("seed", value, 0, 2**64 - 1) for value in values], np.uint64)


def resolve_labels(model: ModelInfo, labels: object, images: NDArray[np.uint64]) -> NDArray[np.int64] | None:
    """Labels of the images; without any, image i of a gallery is of class i mod num_classes."""
    if model.num_classes is None:
        if labels is not None:
            raise OptionError(f"labels were given, but {model.name!r} has no classes; leave them out")
        return None
    if labels is None:
        cycled: NDArray[np.int64] = (images % np.uint64(model.num_classes)).astype(np.int64)
        return cycled
    values: NDArray[np.int64] = per_image("labels", labels, len(images), np.int64).astype(np.int64)
    known = model.num_classes + (model.null_label == model.num_classes)
    outside = (values < 0) | (values >= known)
    if outside.any():
        null = f", or {model.null_label} for no class" if model.null_label == model.num_classes else ""
        raise OptionError(
            f"labels hold {int(values[outside][0])}, expected classes from 0 to {model.num_classes - 1}{null}"
        )
    return values


def resolve_guidance(model: ModelInfo, scale: object, n: int) -> NDArray[np.float32] | None:
    """Guidance scales of n images, or None if all are 1, which is the network without guidance (2207.12598)."""
    if scale is None:
        return None
    with np.errstate(over="ignore"):  # the check for infinity follows
        values = per_image("guidance_scale", scale, n, np.float32).astype(np.float32)
    if not np.isfinite(values).all():
        raise OptionError(f"guidance_scale is {scale!r}, expected finite numbers")
    if (values == 1).all():
        return None
    if model.null_label is None:
        raise OptionError(
            f"guidance_scale is {scale!r}, but {model.name!r} was trained without a null label: only 1, which is no "
            "guidance, can be used"
        )
    return values


def resolve_table(
    manifest: Manifest, schedule: Schedule, solver: str | StepTable | None, steps: Any, options: dict[str, Any]
) -> StepTable:
    """The step table of a solver's name and options, with the plan's defaults, or a table the user made."""
    if isinstance(solver, StepTable):
        if steps is not None or options:
            given = ["steps"] * (steps is not None) + sorted(options)
            raise OptionError(f"solver is a StepTable, which is complete; leave out {', '.join(given)}")
        table = solver
    else:
        table = _make_table(manifest, schedule, solver, steps, options)
    if table.learned_variance and manifest.model.variance_type != "learned_range":
        raise OptionError(
            f"variance is 'learned', but {manifest.model.name!r} has no learned variance; use 'small' or 'large'"
        )
    return table


def _make_table(
    manifest: Manifest, schedule: Schedule, solver: str | None, steps: Any, options: dict[str, Any]
) -> StepTable:
    defaults, model = manifest.defaults, manifest.model
    if solver is not None and not isinstance(solver, str):
        raise OptionTypeError(f"solver is {solver!r}, expected a solver's name or a StepTable")
    name = solver or defaults.solver
    # what the plan knows fills the options of the same name that the solver has
    known = solver_options(name) if name in SOLVERS else {}
    from_plan: dict[str, Any] = {"clip": default_clip(defaults), "variance": model.variance_type}
    chosen: dict[str, Any] = {option: value for option, value in from_plan.items() if option in known}
    if name == defaults.solver:
        listed = steps is not None and not isinstance(steps, (int, np.integer))
        chosen |= {k: v for k, v in defaults.options.items() if not (listed and k in SPREAD_OPTIONS)}
        steps = defaults.steps if steps is None else steps
    chosen |= options
    taken = [*known, *TIMESTEP_OPTIONS]
    unknown = sorted(set(chosen) - set(taken))
    if unknown and name in SOLVERS:
        raise OptionError(f"solver {name!r} has no option {unknown[0]!r}; it has {sorted(taken)}")
    return make_table(name, schedule, steps=steps, prediction_type=model.prediction_type, **chosen)


def default_clip(defaults: DefaultsInfo) -> Clip:
    """The clip a plan asks for."""
    clip = defaults.clip
    if clip.kind == "dynamic":
        return Clip.dynamic(clip.ratio, float("inf") if clip.max_threshold is None else clip.max_threshold)
    return Clip.clamp(clip.limit) if clip.kind == "clamp" else Clip.none()
