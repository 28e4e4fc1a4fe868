"""Images to latents and back: reverse DDIM and DDIM on the same timesteps (2010.02502, section 4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import check_tensor
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionTypeError
from pysdk.plan.manifest import Manifest
from pysdk.request.request import Request
from pysdk.request.solver_table import TIMESTEP_OPTIONS, resolve_table
from pysdk.tasks.given_images import as_state, from_images, refuse
from pysdk.tasks.partial_chain import resolve_course

STEPS = 50
"""Default number of steps of an encoding or decoding."""


def encoding(manifest: Manifest, schedule: Schedule, images: Any, **arguments: Any) -> Request:
    """The request behind `Sampler.encode`."""

    def table(solver: object, steps: Steps, options: dict[str, Any]) -> StepTable:
        refuse(solver=solver)
        spread = {name: options.pop(name) for name in TIMESTEP_OPTIONS if name in options}
        course = resolve_course(manifest, schedule, "ddim", steps, spread)
        return resolve_table(manifest, schedule, "reverse_ddim", [int(t) for t in course.timesteps], options)

    return from_images(manifest, schedule, as_state("images", images, manifest.model), table, **arguments)


def decoding(manifest: Manifest, schedule: Schedule, latents: NDArray[np.float32], **arguments: Any) -> Request:
    """The request behind `Sampler.decode`."""
    if not isinstance(latents, np.ndarray):
        raise OptionTypeError(f"latents are {type(latents).__name__}, expected a float32 array (n, C, H, W)")
    check_tensor("latents", latents, (*latents.shape[:1], *manifest.model.shape), finite=True)

    def table(solver: object, steps: Steps, options: dict[str, Any]) -> StepTable:
        refuse(solver=solver)
        # what is clipped could not have been encoded: 25 instead of 17 dB after 50 steps of the shipped model
        options = {"eta": 0.0, "clip": Clip.none(), **options}
        return resolve_course(manifest, schedule, "ddim", steps, options).table(manifest, schedule)

    return from_images(manifest, schedule, latents, table, **arguments)
