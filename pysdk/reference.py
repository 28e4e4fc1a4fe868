"""The native chain in numpy: the same bits as `csrc/chain` for the same network output.

Slow, short and complete: what a step table means. Equations in `docs/architecture.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pysdk import noise as noise_source
from pysdk.errors import OptionError
from pysdk.table import STEP_COLUMNS, Clip, StepTable

Float = NDArray[np.float32]
Denoise = Callable[[Float, np.float32, NDArray[np.int64]], Float]
Noise = Callable[[int], Float]


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
    z: Float | None = None,
) -> State:
    """Advance a batch by one row.

    Args:
        row: coefficients in the order of `STEP_COLUMNS`, rounded to float32 here.
        state: the batch before the row.
        f: network output, float32 (NB, out_channels, H, W); NB = 2 * batch when guided, conditional half first.
        clip: how r is clipped; not at all when None.
        learned_variance: the second half of the channels of f is v.
        guidance: one weight per image, float32 (batch,), when guided.
        z: standard normals, float32 (batch, C, H, W); needed when s != 0.

    Returns:
        The batch after the row.
    """
    c = dict(zip(STEP_COLUMNS, np.asarray(row, dtype=np.float32), strict=True))
    x, channels = state.x, state.x.shape[1]
    v = f[: len(x), channels:]
    with np.errstate(all="ignore"):  # infinities and NaN are results here, as in C++
        estimate = f[: len(x), :channels]
        if guidance is not None:
            estimate = _guide(estimate, f[len(x) :, :channels], np.asarray(guidance, dtype=np.float32))
        r = _sum(x.shape, (c["p"], x), (c["q"], estimate))
        d = _clip(r, Clip.none() if clip is None else clip)
        if c["s"] == 0:
            z = x  # skipped by its coefficient
        elif z is None:
            raise OptionError("z is None but s is not 0; pass the normals of this row")
        elif learned_variance:
            z = _learned_noise(v, z, c["log_beta"], c["log_beta_tilde"])
        terms = (c["a"], x), (c["b"], d), (c["h"], r), (c["c1"], state.d1), (c["c2"], state.d2), (c["g"], state.y)
        new = _sum(x.shape, *terms, (c["s"], z))
    return State(x=new, d1=d, d2=state.d1, y=x if c["save"] else state.y)


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
    initial: Float | None = None,
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
        initial: x to start from instead of init_scale * z_0.
        noise: draw number -> float32 (batch, C, H, W), instead of Philox.

    Returns:
        The state after the last row.
    """
    index = np.atleast_1d(images)
    draw = noise or (lambda number: noise_source.normal(seeds, index, number, shape))
    rows = table.float32()
    c_in, s = STEP_COLUMNS.index("c_in"), STEP_COLUMNS.index("s")
    batch = len(index)
    network_labels = np.full(batch, null_label, np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
    if guidance is not None:
        network_labels = np.concatenate([network_labels, np.full(batch, null_label, np.int64)])
    x = initial
    if x is None:
        x = _sum((batch, *shape), (np.float32(table.init_scale), draw(noise_source.INITIAL)))
    state = State.start(x)
    for k, row in enumerate(rows):
        network_input = _sum(state.x.shape, (row[c_in], state.x))
        if guidance is not None:
            network_input = np.concatenate([network_input, network_input])
        state = advance_row(
            row,
            state,
            denoise(network_input, row[0], network_labels),
            clip=table.clip,
            learned_variance=table.learned_variance,
            guidance=guidance,
            z=draw(noise_source.FIRST_ROW + k) if row[s] != 0 else None,
        )
    return state


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
    scaled: Float = noise_source.exp(half * (mix * log_beta + (one - mix) * log_beta_tilde)) * z
    return scaled
