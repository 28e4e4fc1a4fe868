"""The native chain in numpy: the same bits as `csrc/chain` for the same network output.

Slow, short and complete: what a step table means. Equations in `docs/architecture.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk.diffusion.table import STEP_COLUMNS, Clip, StepTable
from pysdk.errors import OptionError
from pysdk.noise import FIRST_ROW, INITIAL, KNOWN, exp, normal

Float = NDArray[np.float32]
Denoise = Callable[[Float, np.float32, NDArray[np.int64]], Float]
Noise = Callable[[int], Float]
_T = TypeVar("_T")


@dataclass(frozen=True)
class State:
    """One batch between two rows, each float32 (batch, C, H, W).

    Attributes:
        x: the current sample.
        d1: the newest denoised estimate; `Chain.denoised`.
        d2: the one before.
        y: the saved sample.
    """

    x: Float
    d1: Float
    d2: Float
    y: Float

    @classmethod
    def start(cls, x: Float) -> State:
        """State before the first row: nothing but x."""
        return cls(x, np.zeros_like(x), np.zeros_like(x), np.zeros_like(x))


def advance_row(
    row: ArrayLike,
    state: State,
    f: Float,
    *,
    clip: Clip | None = None,
    learned_variance: bool = False,
    guidance: ArrayLike | None = None,
    gradient: Float | None = None,
    classifier_scale: ArrayLike | None = None,
    z: Float | None = None,
    known: Float | None = None,
    keep: NDArray[np.bool_] | None = None,
    known_z: Float | None = None,
) -> State:
    """Advance a batch by one row.

    Args:
        row: coefficients in the order of `STEP_COLUMNS`, rounded to float32 here.
        state: the batch before the row.
        f: network output, float32 (NB, out_channels, H, W); NB = 2 * batch when guided, conditional half first. Not
            read in a row that skips the network.
        clip: how r is clipped; not at all when None.
        learned_variance: the second half of the channels of f is v.
        guidance: one weight per image, float32 (batch,), when guided.
        gradient: d log p(label | x) / dx of a classifier, float32 (batch, C, H, W); needed when grad != 0.
        classifier_scale: one scale per image, float32 (batch,), likewise.
        z: standard normals, float32 (batch, C, H, W); needed when s != 0.
        known: the image a row with known columns keeps, float32 (batch, C, H, W).
        keep: where it keeps it, bool (batch, C, H, W).
        known_z: standard normals, float32 (batch, C, H, W); needed when known_noise != 0.

    Returns:
        The batch after the row.
    """
    c = dict(zip(STEP_COLUMNS, np.asarray(row, dtype=np.float32), strict=True))
    x, channels = state.x, state.x.shape[1]
    v = f[: len(x), channels:]
    with np.errstate(all="ignore"):  # infinities and NaN are results here, as in C++
        r = d = x  # skipped by their coefficients where no estimate is made
        if not c["skip"]:
            estimate = f[: len(x), :channels]
            if guidance is not None and not c["unguided"]:
                estimate = _guide(estimate, f[len(x) :, :channels], np.asarray(guidance, dtype=np.float32))
            r = _sum(x.shape, (c["p"], x), (c["q"], estimate))
            if c["grad"] != 0:
                given = _given("gradient", gradient), _given("classifier_scale", classifier_scale)
                scale = np.asarray(given[1], dtype=np.float32).reshape(-1, 1, 1, 1)
                shifted = _sum(x.shape, (c["p"], x), (c["q"], estimate), (c["grad"], scale * given[0]))
                r = np.where(scale == 0, r, shifted)
            d = _clip(r, Clip.none() if clip is None else clip)
        if c["s"] == 0:
            z = x  # skipped by its coefficient
        else:
            z = _given("z", z)
            if learned_variance and not c["skip"]:
                z = _learned_noise(v, z, c["log_beta"], c["log_beta_tilde"])
        terms = (c["a"], x), (c["b"], d), (c["h"], r), (c["c1"], state.d1), (c["c2"], state.d2), (c["g"], state.y)
        new = _sum(x.shape, *terms, (c["s"], z))
        if c["known"] != 0 or c["known_noise"] != 0:
            known_z = x if c["known_noise"] == 0 else _given("known_z", known_z)
            noised = _sum(x.shape, (c["known"], _given("known", known)), (c["known_noise"], known_z))
            new = np.where(_given("keep", keep), noised, new)
    y = x if c["save"] else state.y
    return State(new, state.d1, state.d2, y) if c["skip"] else State(new, d, state.d1, y)


def run(
    table: StepTable,
    denoise: Denoise,
    *,
    shape: Sequence[int],
    seeds: ArrayLike,
    images: ArrayLike,
    labels: ArrayLike | None = None,
    null_label: int = -1,
    guidance: ArrayLike | None = None,
    classifier: Denoise | None = None,
    classifier_scale: ArrayLike | None = None,
    initial: Float | None = None,
    known: Float | None = None,
    keep: NDArray[np.bool_] | None = None,
    noise: Noise | None = None,
) -> State:
    """Run a whole chain.

    Args:
        table: the rows.
        denoise: the network, (input (NB, C, H, W), t, labels (NB,)) -> output (NB, out_channels, H, W).
        shape: (C, H, W) of one image.
        seeds: one seed, or one per image.
        images: indices in the gallery, (batch,).
        labels: (batch,); `null_label` for all when None.
        null_label: label of the unconditional half when guided.
        guidance: one weight per image, (batch,); guided when given.
        classifier: its gradient, called as the network is, on the conditional half; for tables with a grad column.
        classifier_scale: one scale per image, (batch,), likewise.
        initial: x to start from instead of init_scale * z_0.
        known, keep: as in `advance_row`, for tables with known columns.
        noise: draw number -> float32 (batch, C, H, W), instead of Philox.

    Returns:
        The state after the last row.
    """
    index = np.atleast_1d(images)
    draw = noise or (lambda number: normal(seeds, index, number, shape))
    rows = table.float32()
    batch = len(index)
    network_labels = np.full(batch, null_label, np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    if guidance is not None:
        network_labels = np.concatenate([network_labels, np.full(batch, null_label, np.int64)])
    x = initial
    if x is None:
        x = _sum((batch, *shape), (np.float32(table.init_scale), draw(INITIAL)))
    state = State.start(x)
    for k, row in enumerate(rows):
        c = dict(zip(STEP_COLUMNS, row, strict=True))
        network_input = _sum(state.x.shape, (c["c_in"], state.x))
        both = network_input if guidance is None else np.concatenate([network_input, network_input])
        gradient = None
        if c["grad"] != 0 and classifier is not None:
            gradient = classifier(network_input, c["t"], network_labels[:batch])
        state = advance_row(
            row,
            state,
            both if c["skip"] else denoise(both, c["t"], network_labels),
            clip=table.clip,
            learned_variance=table.learned_variance,
            guidance=guidance,
            gradient=gradient,
            classifier_scale=classifier_scale,
            z=draw(FIRST_ROW + k) if c["s"] != 0 else None,
            known=known,
            keep=keep,
            known_z=draw(KNOWN + k) if c["known_noise"] != 0 else None,
        )
    return state


def _given(name: str, value: _T | None) -> _T:
    """`value`, which this row needs."""
    if value is None:
        raise OptionError(f"{name} is None, but a coefficient of this row uses it; pass it")
    return value


def _sum(shape: tuple[int, ...], *terms: tuple[np.float32, Float]) -> Float:
    """coefficient * value summed left to right; a zero coefficient is skipped, no terms make 0."""
    total: Float | None = None
    for coefficient, value in terms:
        if coefficient != 0:
            term: Float = coefficient * value
            total = term if total is None else total + term
    return np.zeros(shape, np.float32) if total is None else total


def _guide(conditional: Float, unconditional: Float, w: Float) -> Float:
    """f_u + w * (f_c - f_u); f_u where w is 0, f_c where it is 1."""
    w = w.reshape(-1, 1, 1, 1)
    guided = unconditional + w * (conditional - unconditional)
    return np.where(w == 0, unconditional, np.where(w == 1, conditional, guided))


def _clamp(v: Float, low: Float | np.float32, high: Float | np.float32) -> Float:
    """NaN passes through."""
    return np.where(v < low, low, np.where(v > high, high, v))


def _clip(r: Float, clip: Clip) -> Float:
    if clip.kind == "none":
        return r
    if clip.kind == "clamp":
        limit = np.float32(clip.limit)
        return _clamp(r, -limit, limit)
    threshold = _dynamic_threshold(r, clip).reshape(-1, 1, 1, 1)
    return _clamp(r, -threshold, threshold) / threshold


def _dynamic_threshold(r: Float, clip: Clip) -> Float:
    """Return min(max(quantile(|r|, ratio), 1), max_threshold) of each image, float32 (batch,)."""
    values = np.sort(np.abs(r).reshape(len(r), -1), axis=1)
    position = clip.ratio * (values.shape[1] - 1)
    low = math.floor(position)
    below = values[:, low]
    above = values[:, min(low + 1, values.shape[1] - 1)]
    q = below + np.float32(position - low) * (above - below)
    threshold = np.where(q < 1, np.float32(1), q)
    threshold = np.where(threshold > np.float32(clip.max_threshold), np.float32(clip.max_threshold), threshold)
    result: Float = np.where(np.isnan(values[:, -1]), np.float32(np.nan), threshold)
    return result


def _learned_noise(v: Float, z: Float, log_beta: np.float32, log_beta_tilde: np.float32) -> Float:
    """exp(0.5 * (l*log_beta + (1-l)*log_beta_tilde)) * z with l = (v+1) * 0.5."""
    half, one = np.float32(0.5), np.float32(1)
    mix = (v + one) * half
    scaled: Float = exp(half * (mix * log_beta + (one - mix) * log_beta_tilde)) * z
    return scaled
