"""What the chain is asked for, checked and spelled out image by image before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import check_tensor, per_image, resolve_seeds, whole_number
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.errors import OptionError, OptionTypeError
from pysdk.plan.manifest import DefaultsInfo, Manifest
from pysdk.request.guidance import guide_table, resolve_classifier_scale, resolve_guidance
from pysdk.solvers import LEVEL_OPTIONS, SOLVERS, make_table, solver_options

MAX_IMAGES = 1 << 32
TIMESTEP_OPTIONS = ("spacing", "steps_offset")
"""Options of every solver, see `pysdk.diffusion.timesteps.make_timesteps`."""

SPREAD_OPTIONS = (*TIMESTEP_OPTIONS, "prev_timestep", *LEVEL_OPTIONS)
"""Options that say how a number of steps is spread; a plan's own do not apply to timesteps that are listed."""

REQUEST_ARGUMENTS = (
    "seed",
    "start",
    "labels",
    "guidance_scale",
    "guidance_interval",
    "classifier_scale",
    "noise",
    "initial",
)
"""Keywords of `make_request`; any other belongs to the solver."""

Noise = NDArray[np.float32] | Callable[[int, NDArray[np.uint64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Request:
    """n images to draw, all arrays of length n.

    Attributes:
        table: the rows to run.
        seeds: uint64, the gallery of each image.
        images: uint64, its index there.
        labels: int64, or None if neither network nor classifier takes any.
        guidance: float32, or None for a chain without classifier-free guidance.
        classifier_scale: float32, or None for a chain without classifier guidance.
        noise: replaces the chain's own noise, or None.
        initial: float32 (n, C, H, W), what the chain starts from, or None for noise.
        known: float32 (n, C, H, W), the images that the table's known columns keep, or None.
        keep: uint8 (n, C, H, W), not 0 where they keep them, or None.
    """

    table: StepTable
    seeds: NDArray[np.uint64]
    images: NDArray[np.uint64]
    labels: NDArray[np.int64] | None
    guidance: NDArray[np.float32] | None
    classifier_scale: NDArray[np.float32] | None = None
    noise: Noise | None = None
    initial: NDArray[np.float32] | None = None
    known: NDArray[np.float32] | None = None
    keep: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.seeds)


def make_request(
    manifest: Manifest,
    schedule: Schedule | EdmSchedule,
    table: StepTable,
    *,
    n: int,
    seed: int | Sequence[int] = 0,
    start: int = 0,
    labels: object = None,
    guidance_scale: object = None,
    guidance_interval: object = None,
    classifier_scale: object = None,
    noise: Noise | None = None,
    initial: NDArray[np.float32] | None = None,
) -> Request:
    """Check the arguments of `Sampler.sample`, which documents them, against a plan."""
    count = whole_number("n", n, 0, MAX_IMAGES)
    first = whole_number("start", start, 0, 2**64 - 1 - count)
    images = np.arange(count, dtype=np.uint64) + np.uint64(first)
    check_tensor("initial", initial, (count, *manifest.model.shape), finite=True)
    if not callable(noise):
        check_tensor("noise", noise, (len(table) + 1, count, *manifest.model.shape))
    if initial is None and table.init_scale == 0:
        raise OptionError(
            "this solver's chain has no noise to start from (init_scale 0), it runs on images; give them with "
            "initial=, or use Sampler.encode"
        )
    seeds = resolve_seeds(seed, count)
    guidance = resolve_guidance(
        manifest.model, manifest.defaults.guidance_scale if guidance_scale is None else guidance_scale, count
    )
    scales = resolve_classifier_scale(manifest, classifier_scale, count)
    return Request(
        table=guide_table(table, schedule, guidance, scales, guidance_interval),
        seeds=seeds,
        images=images,
        labels=resolve_labels(manifest, labels, images, classifier=scales is not None),
        guidance=guidance,
        classifier_scale=scales,
        noise=noise,
        initial=initial,
    )


def split_arguments(arguments: dict[str, Any], *, without: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords for `make_request`, and the rest, options of a solver, which refuses what it does not know.

    Args:
        arguments: of a call.
        without: keywords of `make_request` that this call does not take.
    """
    taken = [name for name in REQUEST_ARGUMENTS if name in arguments and name not in without]
    return {name: arguments[name] for name in taken}, {k: v for k, v in arguments.items() if k not in taken}


def resolve_labels(
    manifest: Manifest, labels: object, images: NDArray[np.uint64], *, classifier: bool = False
) -> NDArray[np.int64] | None:
    """Labels of the images; without any, image i of a gallery is of class i mod num_classes.

    Args:
        manifest: of the plan.
        labels: one for all images, one per image, or None.
        images: their indices in the gallery.
        classifier: a classifier guides them, so labels are also its classes.
    """
    model = manifest.model
    classes, null_label, name = model.num_classes, model.null_label, model.name
    if classifier and manifest.classifier is not None:
        # a network without classes ignores the labels that the classifier reads; no class is none of its classes
        classes, null_label = manifest.classifier.num_classes, None
    if classes is None:
        if labels is not None:
            raise OptionError(f"labels were given, but {name!r} has no classes; leave them out")
        return None
    if labels is None:
        cycled: NDArray[np.int64] = (images % np.uint64(classes)).astype(np.int64)
        return cycled
    values: NDArray[np.int64] = per_image("labels", labels, len(images), np.int64).astype(np.int64)
    known = classes + (null_label == classes)
    outside = (values < 0) | (values >= known)
    if outside.any():
        null = f", or {null_label} for no class" if null_label == classes else ""
        raise OptionError(f"labels hold {int(values[outside][0])}, expected classes from 0 to {classes - 1}{null}")
    return values


def resolve_table(
    manifest: Manifest,
    schedule: Schedule | EdmSchedule,
    solver: str | StepTable | None,
    steps: Any,
    options: dict[str, Any],
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
    t = table.column("t")
    if isinstance(schedule, Schedule) and not (t.min() >= 0 and t.max() <= len(schedule) - 1):
        raise OptionError(
            f"the table visits timesteps {t.min():.6g} to {t.max():.6g}, but the network of "
            f"{manifest.model.name!r} knows 0 to {len(schedule) - 1}"
        )
    if manifest.model.whole_timesteps and (t % 1 != 0).any():
        raise OptionError(
            f"the table visits timestep {t[t % 1 != 0][0]:.6g}, but "
            f"{manifest.model.name!r} takes whole ones; use sigmas='timesteps' without s_churn"
        )
    return table


def _make_table(
    manifest: Manifest, schedule: Schedule | EdmSchedule, solver: str | None, steps: Any, options: dict[str, Any]
) -> StepTable:
    name, steps, chosen = with_defaults(manifest, solver, steps, options)
    return make_table(name, schedule, steps=steps, prediction_type=manifest.model.prediction_type, **chosen)


def with_defaults(
    manifest: Manifest, solver: str | None, steps: Any, options: dict[str, Any]
) -> tuple[str, Any, dict[str, Any]]:
    """Name, steps and options of a solver, filled up with what the plan knows and asks for."""
    defaults, model = manifest.defaults, manifest.model
    if solver is not None and not isinstance(solver, str):
        raise OptionTypeError(f"solver is {solver!r}, expected a solver's name or a StepTable")
    name = solver or defaults.solver
    # what the plan knows fills the options of the same name that the solver has
    known = solver_options(name) if name in SOLVERS else {}
    none = Clip.none()  # a solver that never clips by itself does not clip because the plan does
    from_plan: dict[str, Any] = {"clip": default_clip(defaults), "variance": model.variance_type}
    chosen: dict[str, Any] = {option: value for option, value in from_plan.items() if known.get(option, none) != none}
    if name == defaults.solver:
        # levels or timesteps that are named leave nothing to spread
        named = "sigmas" in options or (steps is not None and not isinstance(steps, (int, np.integer)))
        chosen |= {k: v for k, v in defaults.options.items() if not (named and k in SPREAD_OPTIONS)}
        if steps is None and isinstance(options.get("sigmas", ""), str):
            steps = defaults.steps
    chosen |= options
    taken = [*known, *TIMESTEP_OPTIONS]
    unknown = sorted(set(chosen) - set(taken))
    if unknown and name in SOLVERS:
        raise OptionError(f"solver {name!r} has no option {unknown[0]!r}; it has {sorted(taken)}")
    return name, steps, chosen


def default_clip(defaults: DefaultsInfo) -> Clip:
    """The clip a plan asks for."""
    clip = defaults.clip
    if clip.kind == "dynamic":
        return Clip.dynamic(clip.ratio, float("inf") if clip.max_threshold is None else clip.max_threshold)
    return Clip.clamp(clip.limit) if clip.kind == "clamp" else Clip.none()
