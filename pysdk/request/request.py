"""What the chain is asked for, checked and spelled out image by image before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import check_tensor, per_image, resolve_seeds, whole_number
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import StepTable
from pysdk.errors import OptionError
from pysdk.plan.manifest import Manifest
from pysdk.request.guidance import guide_table, resolve_classifier_scale, resolve_guidance
from pysdk.request.solver_table import resolve_table

MAX_IMAGES = 1 << 32
MakeTable = Callable[[str | StepTable | None, Any, dict[str, Any]], StepTable]
"""(solver, steps, options) -> the rows to run; OptionError if they cannot be used."""

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

    def of(self, index: NDArray[np.int64]) -> dict[str, Any]:
        """What a native chain's `begin` takes for the images at these positions, beside the table and the noise."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("table", "noise")}
        return {name: None if array is None else np.ascontiguousarray(array[index]) for name, array in arrays.items()}


def make_request(
    manifest: Manifest,
    schedule: Schedule | EdmSchedule,
    n: int,
    make_table: MakeTable | None = None,
    /,
    *,
    seed: int | Sequence[int] = 0,
    start: int = 0,
    labels: object = None,
    guidance_scale: object = None,
    guidance_interval: object = None,
    classifier_scale: object = None,
    noise: Noise | None = None,
    initial: NDArray[np.float32] | None = None,
    solver: str | StepTable | None = None,
    steps: Any = None,
    **options: Any,
) -> Request:
    """Check the arguments of `Sampler.sample`, which documents them, against a plan.

    `make_table` turns solver, steps and options into rows; by default `resolve_table`, the whole chain of a solver.
    """
    if make_table is None:
        table = resolve_table(manifest, schedule, solver, steps, options)
    else:
        table = make_table(solver, steps, options)
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


def resolve_labels(
    manifest: Manifest, labels: object, images: NDArray[np.uint64], *, classifier: bool = False
) -> NDArray[np.int64] | None:
    """Labels of the images; by default image i of a gallery has class i mod num_classes.

    Args:
        manifest: the plan's.
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
