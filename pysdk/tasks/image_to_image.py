"""Redrawing images from a noised start (SDEdit, Meng et al. 2021, https://arxiv.org/abs/2108.01073)."""

from __future__ import annotations

from typing import Any

from pysdk.checks import checked_number
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionError
from pysdk.plan.manifest import Manifest
from pysdk.request.request import Request
from pysdk.tasks.forward_rows import from_clean
from pysdk.tasks.given_images import as_state, from_images
from pysdk.tasks.partial_chain import Course, resolve_course

STRENGTH = 0.5


def redrawing(
    manifest: Manifest,
    schedule: Schedule,
    images: Any,
    *,
    strength: float | None,
    timestep: int | None,
    **arguments: Any,
) -> Request:
    """The request behind `Sampler.image_to_image`: a row that diffuses, and the rest of the solver's rows."""

    def table(solver: Any, steps: Steps, options: dict[str, Any]) -> StepTable:
        course = resolve_course(manifest, schedule, solver, steps, options)
        if timestep is not None and strength is not None:
            raise OptionError("strength and timestep both say how far to diffuse; give one of them")
        first = start_of(course, STRENGTH if strength is None else strength) if timestep is None else timestep
        return from_clean(course.starting_at(first, schedule).table(manifest, schedule), schedule)

    return from_images(manifest, schedule, as_state("images", images, manifest.model), table, **arguments)


def start_of(course: Course, strength: float) -> int:
    """The timestep at which int(strength * K) of K steps are left, as in diffusers."""
    total = len(course.timesteps)
    share = checked_number("strength", strength, 0, 1, "above 0 and up to 1")
    count = int(total * share)
    if count == 0:
        raise OptionError(f"strength is {strength!r}, less than one of {total} steps; use {1 / total:.3g} or more")
    return int(course.timesteps[total - count])
