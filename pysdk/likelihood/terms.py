"""The variational bound of DDPM as rows that the native side evaluates, all coefficients float64.

    -log p(x_0) <= L_T + sum over t > 0 of L_{t-1} + L_0                                       (DDPM, eq. 5)
    L_T     = KL(q(x_T | x_0) || N(0, I))
    L_{t-1} = KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))
    L_0     = -log p(x_0 | x_1), the mass of a normal distribution in the bin of each pixel     (DDPM, eq. 13)

A row is named by the timestep of the x_t that its network call sees, counted from 0: the paper's L_{t-1} of x_t is the
row of timestep t - 1, and L_0 that of timestep 0.

References:
    DDPM: Ho et al., 2020, https://arxiv.org/abs/2006.11239
    iDDPM: Nichol & Dhariwal, 2021, https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pysdk import _native
from pysdk.checks import check_choice, whole_number
from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.timesteps import Int64Array
from pysdk.solvers import read_output
from pysdk.solvers.ddpm import VARIANCES


@dataclass(frozen=True)
class Terms:
    """What to evaluate, noisiest first; the last row is the decoder's.

    Attributes:
        timesteps: training timesteps of the rows, descending, int64 (K,).
        weights: how many terms of the bound each row stands for, float64 (K,).
        rows: float64 (K, len(_native.BOUND_COLUMNS)).
        learned_variance: whether the rows read the network's second half of channels.
        final_alpha_cumprod: abar of x_T.
    """

    timesteps: Int64Array
    weights: Float64Array
    rows: Float64Array
    learned_variance: bool
    final_alpha_cumprod: float


def make_terms(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str,
    variance: str,
    count: int | None = None,
    seed: int = 0,
) -> Terms:
    """All terms of the process that visits `timesteps`, or a random `count` of them.

    Args:
        schedule: the forward process the network was trained on.
        timesteps: those of the reverse process, descending, int64 (K,); the process is respaced to them
            (iDDPM, section 4).
        prediction_type: how the network is read.
        variance: for p(x_{t-1} | x_t): "small" (beta_tilde), "large" (beta) or "learned" (iDDPM, eq. 15), or
            diffusers' names for them. For both fixed ones the decoder has beta_tilde of the step after it, as in the
            code of both papers.
        count: network calls, 2..K; see `stratified`.
        seed: makes the choice.

    Raises:
        OptionError: the variance is none of these, or `count` is out of range.
    """
    check_choice("variance", variance, VARIANCES)
    kind = VARIANCES[variance]
    process = schedule.respace(timesteps[::-1])
    abar = process.alphas_cumprod
    p, q = read_output(prediction_type, abar)
    small, beta = process.posterior_log_variance_clipped, np.log(process.betas)
    large = np.append(small[:1], beta[1:])
    columns = {
        "t": timesteps[::-1],
        "signal": np.sqrt(abar),
        "noise": np.sqrt(1 - abar),
        "p": p,
        "q": q,
        "from_x0": process.posterior_mean_coefficients[0],
        "log_posterior": small,
        "log_low": small,
        "log_high": {"small": small, "large": large, "learned": beta}[kind],
        "decoder": np.arange(len(process)) == 0,
    }
    ascending = np.stack([np.asarray(columns[name], np.float64) for name in _native.BOUND_COLUMNS], axis=1)
    chosen: NDArray[np.intp]
    weights: NDArray[np.float64]
    if count is None:
        chosen, weights = np.arange(len(process)), np.ones(len(process))
    else:
        # one row has nothing to choose from
        low = min(2, len(process))
        chosen, weights = stratified(len(process), whole_number("terms", count, low, len(process)), seed)
    return Terms(
        timesteps=timesteps[::-1][chosen][::-1].copy(),
        weights=weights[::-1].copy(),
        rows=np.ascontiguousarray(ascending[chosen][::-1]),
        learned_variance=kind == "learned",
        final_alpha_cumprod=float(abar[-1]),
    )


def stratified(total: int, count: int, seed: int) -> tuple[Int64Array, Float64Array]:
    """A random choice of `count` of `total` rows whose weighted sum is the whole sum on average.

    Row 0 is always taken. The others are cut into count - 1 ranges, the i-th ending at (i / (count - 1))^2 of them,
    so narrow where the terms are large; each gives one row, all of a range equally likely, with the range's size as its
    weight. Any term is thus counted once on average: the estimate is unbiased whatever the terms are.

    Returns:
        The rows, ascending, int64 (count,), and their weights, float64 (count,).
    """
    ranges = count - 1
    edges = [0]
    for i in range(1, ranges + 1):
        edges.append(max(edges[-1] + 1, round((total - 1) * (i / ranges) ** 2)))
    widths = np.diff(edges)
    # a bit generator's raw output, unlike a distribution's, is the same in every version of numpy
    words = np.random.PCG64(seed).random_raw(ranges) if ranges else np.empty(0, np.uint64)
    uniform = (np.asarray(words, np.uint64) >> np.uint64(11)) * 2.0**-53
    rows = 1 + np.array(edges[:-1], np.int64) + (uniform * widths).astype(np.int64)
    return np.append(0, rows).astype(np.int64), np.append(1.0, widths)


def prior_nats(
    pixels: NDArray[np.uint8], alpha_cumprod: float, value_range: tuple[float, float]
) -> NDArray[np.float64]:
    """L_T of each image in nats: sum of (abar (x_0^2 - 1) - log(1 - abar)) / 2, in closed form.

    Args:
        pixels: uint8 (N, C, H, W).
        alpha_cumprod: abar of x_T.
        value_range: what the levels 0 and 255 are to the network.
    """
    low, step = value_range[0], (value_range[1] - value_range[0]) / 255
    levels = pixels.reshape(len(pixels), -1).astype(np.int64)
    size = levels.shape[1]
    # whole numbers have exact sums, in any order
    squares = size * low**2 + 2 * low * step * levels.sum(1) + step**2 * (levels**2).sum(1)
    nats: NDArray[np.float64] = 0.5 * (alpha_cumprod * (squares - size) - size * np.log1p(-alpha_cumprod))
    return nats
