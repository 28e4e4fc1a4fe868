"""Images to latents and back: reverse DDIM and DDIM on the same timesteps (2010.02502, section 4.3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import check_tensor
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionTypeError
from pysdk.plan.manifest import Manifest
from pysdk.request.request import TIMESTEP_OPTIONS, Request, make_request, resolve_table
from pysdk.tasks.given_images import as_state, request_arguments
from pysdk.tasks.partial_chain import resolve_course

STEPS = 50
"""Of an encoding or decoding, unless it is told otherwise."""


def encoding(manifest: Manifest, schedule: Schedule, images: Any, steps: Steps, arguments: dict[str, Any]) -> Request:
    """The request behind `Sampler.encode`."""
    x = as_state("images", images, manifest.model)
    named, options = request_arguments(manifest, arguments)
    spread = {name: options.pop(name) for name in TIMESTEP_OPTIONS if name in options}
    course = resolve_course(manifest, schedule, "ddim", steps, spread)
    table = resolve_table(manifest, schedule, "reverse_ddim", [int(t) for t in course.timesteps], options)
    return make_request(manifest, schedule, table, n=len(x), initial=x, **named)


def decoding(
    manifest: Manifest, schedule: Schedule, latents: NDArray[np.float32], steps: Steps, arguments: dict[str, Any]
) -> Request:
    """The request behind `Sampler.decode`."""
    if not isinstance(latents, np.ndarray):
        raise OptionTypeError(f"latents are {type(latents).__name__}, expected a float32 array (n, C, H, W)")
    check_tensor("latents", latents, (*latents.shape[:1], *manifest.model.shape), finite=True)
    named, options = request_arguments(manifest, arguments)
    # what is clipped on the way could not have been encoded: 25 instead of 17 dB after 50 steps of the shipped model
    options = {"eta": 0.0, "clip": Clip.none(), **options}
    table = resolve_course(manifest, schedule, "ddim", steps, options).table(manifest, schedule)
    return make_request(manifest, schedule, table, n=len(latents), initial=latents, **named)
