"""From one image to another: on the sphere of latents, or linearly at a timestep (2006.11239, figure 8)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import is_whole_number, whole_number
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import StepTable
from pysdk.diffusion.timesteps import Steps
from pysdk.errors import OptionError
from pysdk.noise import INITIAL, normal
from pysdk.plan.manifest import Manifest
from pysdk.request.request import MAX_IMAGES, Request, make_request
from pysdk.tasks.encode import STEPS, decoding, encoding
from pysdk.tasks.given_images import one_as_state, refuse, with_null_label
from pysdk.tasks.partial_chain import resolve_course

Float = NDArray[np.float32]

_NEARLY_PARALLEL = 1e-6
"""Radians below which the sphere is flat."""


def slerp(first: Float, second: Float, weights: NDArray[np.float64]) -> Float:
    """sin((1-w) angle)/sin(angle) first + sin(w angle)/sin(angle) second for each weight (Shoemake 1985).

    Args:
        first, second: float32 of one shape; the angle is that between them as vectors.
        weights: float64 (n,) in [0, 1]; 0 gives `first`, 1 gives `second`, bit for bit.

    Returns:
        float32 (n, *shape). Opposite vectors, between which no way is the shortest, are OptionError.
    """
    a, b = first.astype(np.float64), second.astype(np.float64)
    cosine = np.sum(a * b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-300)
    angle = float(np.arccos(np.clip(cosine, -1, 1)))
    if np.pi - angle < _NEARLY_PARALLEL:
        raise OptionError("first and second have opposite latents; no way between them is the shortest")
    w = weights.reshape(-1, *[1] * a.ndim)
    if angle < _NEARLY_PARALLEL:
        return ((1 - w) * a + w * b).astype(np.float32)
    mixed: Float = ((np.sin((1 - w) * angle) * a + np.sin(w * angle) * b) / np.sin(angle)).astype(np.float32)
    mixed[weights == 0], mixed[weights == 1] = first, second
    return mixed


def latent_ends(
    manifest: Manifest, schedule: Schedule, first: Any, second: Any, *, seed: Any = 0, **arguments: Any
) -> Float | Request:
    """Latents of both ends, float32 (2, C, H, W), of two numbers in the gallery; or the request that encodes images."""
    numbers = [is_whole_number(end) for end in (first, second)]
    if all(numbers):
        index = [whole_number("first", first, 0, 2**64 - 1), whole_number("second", second, 0, 2**64 - 1)]
        one_seed = whole_number("seed", seed, 0, 2**64 - 1)
        return normal(one_seed, np.array(index, np.uint64), INITIAL, manifest.model.shape)
    if any(numbers):
        raise OptionError("one of first and second is a number of the gallery, the other an image; give two of a kind")
    images = np.concatenate([one_as_state(*end, manifest.model) for end in (("first", first), ("second", second))])
    return _encoding_ends(manifest, schedule, images, seed=seed, **arguments)


def _encoding_ends(
    manifest: Manifest,
    schedule: Schedule,
    images: Float,
    *,
    labels: Any = None,
    guidance_scale: Any = None,
    classifier_scale: Any = None,
    steps: Steps = STEPS,
    eta: object = None,
    clip: object = None,
    use_clipped_model_output: object = None,
    **arguments: Any,
) -> Request:
    """The request that encodes both ends: without DDIM's own options, and of what each frame has, the outer ones."""

    def ends(values: Any) -> Any:
        array = np.asarray(values)
        return array[[0, -1]] if array.ndim == 1 and array.size > 0 else values

    return encoding(
        manifest,
        schedule,
        images,
        labels=ends(labels),
        guidance_scale=ends(guidance_scale),
        classifier_scale=ends(classifier_scale),
        steps=steps,
        **arguments,
    )


def on_the_sphere(
    manifest: Manifest,
    schedule: Schedule,
    ends: Float,
    n: int,
    *,
    steps: Steps = STEPS,
    network_timestep: object = None,
    **arguments: Any,
) -> Request:
    """The request that decodes n latents between two, float32 (2, C, H, W); `network_timestep` is of the encoding."""
    mixed = slerp(ends[0], ends[1], _weights(n))
    return _sharing_noise(decoding(manifest, schedule, mixed, steps=steps, **arguments))


def diffused(
    manifest: Manifest,
    schedule: Schedule,
    first: Any,
    second: Any,
    n: int,
    *,
    timestep: int,
    seed: Any = 0,
    start: Any = 0,
    noise: object = None,
    initial: object = None,
    **arguments: Any,
) -> Request:
    """The request that denoises n images between x_t of one and x_t of the other."""
    refuse(noise=noise, initial=initial)
    images = [one_as_state(*end, manifest.model) for end in (("first", first), ("second", second))]
    weights = _weights(n)

    def table(solver: Any, steps: Steps, options: dict[str, Any]) -> StepTable:
        course = resolve_course(manifest, schedule, solver, steps, options)
        return course.starting_at(timestep, schedule).table(manifest, schedule)

    arguments = with_null_label(manifest, **arguments)
    request = make_request(manifest, schedule, len(weights), table, seed=seed, start=start, **arguments)
    # the noise of two neighbours in the gallery, each where the chain would start
    first_seed, first_image = whole_number("seed", seed, 0, 2**64 - 1), whole_number("start", start, 0, 2**64 - 2)
    neighbours = np.array([first_image, first_image + 1], np.uint64)
    z = normal(first_seed, neighbours, INITIAL, manifest.model.shape)
    abar, c_in = float(schedule.alphas_cumprod[timestep]), float(request.table.column("c_in")[0])
    noised = [np.sqrt(abar) * image[0].astype(np.float64) + np.sqrt(1 - abar) * z[i] for i, image in enumerate(images)]
    w = weights.reshape(-1, 1, 1, 1)
    mixed = (((1 - w) * noised[0] + w * noised[1]) / c_in).astype(np.float32)
    return _sharing_noise(dataclasses.replace(request, initial=mixed))


def _weights(n: object) -> NDArray[np.float64]:
    return np.linspace(0.0, 1.0, whole_number("n", n, 2, MAX_IMAGES), dtype=np.float64)


def _sharing_noise(request: Request) -> Request:
    """All images draw the noise of the first, so that neighbours are alike."""
    return dataclasses.replace(request, images=np.full_like(request.images, request.images[0]))
