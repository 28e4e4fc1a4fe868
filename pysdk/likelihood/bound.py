"""Evaluates the variational bound of a plan on images: arguments in, `Likelihood` out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pysdk import _native
from pysdk.checks import whole_number
from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.table import Clip
from pysdk.diffusion.timesteps import Int64Array, Steps, make_timesteps
from pysdk.engines.contract import Engine
from pysdk.errors import NumericalError, OptionError, OptionTypeError
from pysdk.likelihood.terms import Terms, make_terms, prior_nats
from pysdk.plan.manifest import Manifest, ModelInfo
from pysdk.request.request import MAX_IMAGES, resolve_labels
from pysdk.request.solver_table import default_clip


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The variational bound of N images, in bits per dimension (log2, divided by C*H*W).

    Attributes:
        timesteps: where the K terms were evaluated, descending, int64 (K,).
        weights: how many terms each stands for, float64 (K,): ones, unless a subset was asked for.
        prior: L_T, float64 (N,).
        terms: L_{t-1} for every timestep, float64 (N, K), unweighted; the last column is the discretised L_0.
        squared_error: mean of (x_0 - D)^2 at x_t for every timestep, on the scale [0, 255], float64 (N, K).
    """

    timesteps: Int64Array
    weights: Float64Array
    prior: Float64Array
    terms: Float64Array
    squared_error: Float64Array

    @property
    def transitions(self) -> Float64Array:
        """Every L_{t-1} but L_0, float64 (N, K - 1), unweighted."""
        return self.terms[:, :-1]

    @property
    def decoder(self) -> Float64Array:
        """L_0, float64 (N,)."""
        return self.terms[:, -1]

    @property
    def per_image(self) -> Float64Array:
        """The whole bound of each image, or its unbiased estimate: L_T + sum of weight * term, float64 (N,)."""
        total: Float64Array = self.prior + (self.terms * self.weights).sum(1)
        return total

    @property
    def bits_per_dim(self) -> float:
        """Mean of `per_image`: an upper bound of the negative log likelihood."""
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of `bits_per_dim`, from the spread between images; NaN for one image.

        A subset's timesteps are common to all images; their own error is not in it.
        """
        count = len(self.prior)
        return float(self.per_image.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")

    def summary(self) -> str:
        """For a terminal: the mean bound and its parts."""
        transitions = float((self.transitions * self.weights[:-1]).sum(1).mean())
        return (
            f"{self.bits_per_dim:.4f} bits/dim (standard error {self.standard_error:.4f}, {len(self.prior)} images, "
            f"{len(self.timesteps)} of {round(self.weights.sum())} terms)\n"
            f"L_T {self.prior.mean():.6f}, L_1 .. L_(T-1) {transitions:.4f}, L_0 {self.decoder.mean():.4f}"
        )


@dataclass(frozen=True)
class Question:
    """N images and the terms to evaluate on them, checked.

    Attributes:
        pixels: uint8 (N, C, H, W).
        images: uint64 (N,), indices in the gallery of `seed`, whose noise is used.
        labels: int64 (N,), or None.
    """

    terms: Terms
    pixels: NDArray[np.uint8]
    images: NDArray[np.uint64]
    labels: NDArray[np.int64] | None
    seed: int
    clip_limit: float
    model: ModelInfo


def make_question(
    manifest: Manifest,
    schedule: Schedule,
    images: NDArray[np.uint8],
    *,
    labels: object,
    seed: int,
    start: int,
    steps: Steps,
    terms: int | None,
    variance: str | None,
    clip: Clip | None,
    options: dict[str, Any],
) -> Question:
    """Check the arguments of `Sampler.likelihood`, which documents them, against a plan."""
    model = manifest.model
    pixels = _checked_images(images, model)
    first = whole_number("start", start, 0, 2**64 - 1 - len(pixels))
    numbers = np.arange(len(pixels), dtype=np.uint64) + np.uint64(first)
    if model.prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise OptionError(
            f"{model.name!r} predicts {model.prediction_type!r}; the bound is a DDPM's, for 'epsilon', 'sample' "
            "and 'v_prediction'"
        )
    if labels is None and model.num_classes is not None:
        null = "" if model.null_label is None else f", or {model.null_label} for no class"
        raise OptionError(
            f"labels are missing: {model.name!r} has {model.num_classes} classes; give the class of each image{null}"
        )
    kind = model.variance_type if variance is None else variance
    unknown = sorted(set(options) - {"spacing", "steps_offset"})
    if unknown:
        raise OptionError(f"likelihood has no option {unknown[0]!r}; it has 'spacing' and 'steps_offset'")
    visited = make_timesteps(len(schedule), steps, **options)
    chosen = make_terms(
        schedule,
        visited,
        prediction_type=model.prediction_type,
        variance=kind,
        count=terms,
        seed=whole_number("seed", seed, 0, 2**64 - 1),
    )
    if chosen.learned_variance and model.variance_type != "learned_range":
        raise OptionError(f"variance is {kind!r}, but {model.name!r} has no learned variance; use 'small' or 'large'")
    return Question(
        terms=chosen,
        pixels=pixels,
        images=numbers,
        labels=resolve_labels(manifest, labels, numbers, classifier=False),
        seed=seed,
        clip_limit=_clip_limit(default_clip(manifest.defaults) if clip is None else clip),
        model=model,
    )


def answer(
    question: Question,
    engine: Engine,
    *,
    batch_size: int,
    padded: bool,
    threads: int,
    advance: Callable[[_native.Bound, int], None],
    take: Callable[..., Callable[[], None]],
) -> Likelihood:
    """Run the bound over all images.

    Args:
        question: what to evaluate.
        engine: the network.
        batch_size: images in one network call.
        padded: whether every call must have this size.
        threads: for everything but the network.
        advance: runs a native chain to its end; its second argument is how many images are done.
        take: `pysdk.runtime.cpu.Executor.take`; what is taken is given back at the end.

    Raises:
        MemoryLimitError: the terms, or the buffers of a batch, are more than is left.
        NumericalError: a term is NaN or infinite.
        EngineError: the network failed.
    """
    model, terms = question.model, question.terms
    count, dimensions = len(question.pixels), question.pixels[0].size
    # both kinds of terms as sums and as answers, and whole numbers for L_T
    size = 33 * count * len(terms.rows) + 16 * question.pixels.size
    with ExitStack() as taken:
        taken.callback(take(size, f"{count} images in {len(terms.rows)} terms need"))
        nats, errors = np.empty((2, count, len(terms.rows)))
        bounds: dict[int, _native.Bound] = {}
        taken.callback(bounds.clear)
        for first in range(0, count, batch_size):
            last = min(first + batch_size, count)
            size = batch_size if padded else last - first
            if size not in bounds:
                made: dict[str, Any] = {"shape": model.shape, "out_channels": model.out_channels, "threads": threads}
                most = _native.Bound.most_bytes(batch=size, rows=len(terms.rows), **made)
                taken.callback(take(most, f"the bound of {size} images needs", engine, [size]))
                bounds[size] = _native.Bound(batch=size, **made)
                bounds[size].attach(engine.bind(bounds[size]))
            index = np.minimum(np.arange(first, first + size), last - 1)
            bounds[size].begin(
                terms.rows,
                pixels=np.ascontiguousarray(question.pixels[index]),
                seeds=np.full(size, question.seed, np.uint64),
                images=question.images[index],
                learned_variance=terms.learned_variance,
                clip_limit=question.clip_limit,
                value_low=model.value_range[0],
                value_high=model.value_range[1],
                labels=None if question.labels is None else question.labels[index],
            )
            advance(bounds[size], first)
            nats[first:last] = bounds[size].terms[: last - first]
            errors[first:last] = bounds[size].errors[: last - first]
        _check_finite(nats, question)
        level = (model.value_range[1] - model.value_range[0]) / 255
        return Likelihood(
            timesteps=terms.timesteps,
            weights=terms.weights,
            prior=prior_nats(question.pixels, terms.final_alpha_cumprod, model.value_range) / (dimensions * np.log(2)),
            terms=nats / (dimensions * np.log(2)),
            squared_error=errors / (dimensions * level**2),
        )


def _check_finite(nats: Float64Array, question: Question) -> None:
    finite = np.isfinite(nats)
    if not finite.all():
        image, row = np.argwhere(~finite)[0]
        raise NumericalError(
            f"the term of timestep {question.terms.timesteps[row]} of image {image} is NaN or infinite: the network "
            "diverges on it, or gives it a variance that float64 cannot hold"
        )


def _checked_images(images: object, model: ModelInfo) -> NDArray[np.uint8]:
    """uint8 (N, H, W, C) of the plan's shape as (N, C, H, W)."""
    channels, height, width = model.shape
    dtype = getattr(images, "dtype", type(images).__name__)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise OptionTypeError(f"images are {dtype}, expected a uint8 array: the likelihood is defined for 8-bit levels")
    if images.ndim != 4 or images.shape[1:] != (height, width, channels):
        raise OptionError(
            f"images have shape {images.shape}, but {model.name!r} needs (N, {height}, {width}, {channels})"
        )
    if not 1 <= len(images) <= MAX_IMAGES:
        raise OptionError(f"there are {len(images)} images, expected from 1 to {MAX_IMAGES}")
    pixels: NDArray[np.uint8] = np.asarray(images).transpose(0, 3, 1, 2)
    return pixels


def _clip_limit(clip: Clip) -> float:
    if not isinstance(clip, Clip):
        raise OptionTypeError(f"clip is {clip!r}, expected Clip.clamp(limit) or Clip.none()")
    if clip.kind == "dynamic":
        raise OptionError(
            "the bound is not made for a dynamic threshold; give clip=Clip.clamp(1.0) or clip=Clip.none() to "
            "`likelihood`"
        )
    return clip.limit if clip.kind == "clamp" else float("inf")
