"""Euler, Euler ancestral and Heun in sigma, with EDM's stochastic churn.

Written for x/S (`pysdk.diffusion.noise_levels`), where the probability flow is dx/dsigma = (x - D)/sigma.

References:
    EDM: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
        https://arxiv.org/abs/2206.00364
    The names, and the ancestral step, are those of k-diffusion, https://github.com/crowsonkb/k-diffusion
"""

from __future__ import annotations

import math

import numpy as np

from pysdk.checks import checked_number
from pysdk.diffusion.noise_levels import Levels, checked_eta
from pysdk.diffusion.schedule import Float64Array
from pysdk.diffusion.table import Clip, StepTable
from pysdk.errors import OptionError
from pysdk.solvers import DEFAULT_CLIP, solver


@solver
def euler(
    levels: Levels,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """x' = x + (sigma' - sigma^) (x^ - D)/sigma^ (EDM, Algorithm 2 without its second-order correction).

    Before a step, noise raises sigma to sigma^ = (1 + gamma) sigma, x^ = x + s_noise sqrt(sigma^^2 - sigma^2) z, with
    gamma = min(s_churn/K, sqrt(2) - 1) where s_tmin <= sigma <= s_tmax, else 0. A table adds noise at the end of a row,
    so row k draws that of step k + 1; that of step 0 is one with the chain's start. Last row: ends on D.

    Args:
        s_churn, s_tmin, s_tmax, s_noise: the churn; none by default.
        clip: what is done to the estimate of x_0.
    """
    raised, added = _churn(levels, s_churn, s_tmin, s_tmax, s_noise)
    a = levels.sigmas[1:] / raised
    visited, s = np.append(raised, 0.0), np.append(added[1:], 0.0)
    return levels.table(visited, a=a, b=1 - a, s=s, clip=clip, prior=math.hypot(levels.prior, added[0]))


@solver
def heun(
    levels: Levels,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """`euler`, then the mean of both slopes (EDM, Algorithm 1; with churn, Algorithm 2): second order.

        x~ = x^ + (sigma' - sigma^) d        d  = (x^ - D)/sigma^
        x' = x^ + (sigma' - sigma^) (d + d')/2        d' = (x~ - D')/sigma'

    Two rows a step, the second from the x^ that the first saved; the last step, to sigma' = 0, is Euler's and ends on
    D. So K levels are 2 K - 1 calls of the network. The churn is that of `euler`, drawn by the second row.

    Args:
        s_churn, s_tmin, s_tmax, s_noise: the churn; none by default.
        clip: what is done to the estimates of x_0.
    """
    raised, added = _churn(levels, s_churn, s_tmin, s_tmax, s_noise)
    count = len(levels)
    visited = np.zeros(2 * count)
    visited[0::2], visited[1::2] = raised, levels.sigmas[1:]
    rows = {name: np.zeros(2 * count - 1) for name in ("a", "b", "g", "s", "save")}
    saved = np.ones(2 * count - 1)
    rows["a"][0::2] = levels.sigmas[1:] / raised
    rows["save"][0:-1:2] = 1.0
    slope = (1 - raised[:-1] / levels.sigmas[1:-1]) / 2  # (sigma' - sigma^)/(2 sigma')
    rows["a"][1::2], rows["g"][1::2], rows["s"][1::2] = 0.5 + slope, 0.5, added[1:]
    rows["b"][0::2], rows["b"][1::2] = 1 - rows["a"][0::2], -slope
    saved[1::2] = raised[:-1]
    return levels.table(visited, **rows, saved=saved, clip=clip, prior=math.hypot(levels.prior, added[0]))


@solver
def euler_ancestral(levels: Levels, *, eta: float = 1.0, s_noise: float = 1.0, clip: Clip = DEFAULT_CLIP) -> StepTable:
    """x' = x + (sigma_down - sigma) (x - D)/sigma + s_noise sigma_up z (k-diffusion, `sample_euler_ancestral`).

    sigma_up = eta sigma' sqrt(1 - sigma'^2/sigma^2), sigma_down^2 = sigma'^2 - sigma_up^2. On the levels of training
    timesteps it is DDIM with the same eta; eta 1 is DDPM with the small variance. Last row: ends on D, without noise.

    Args:
        eta: in [0, 1]; 0 is `euler`.
        s_noise: scales the noise.
        clip: what is done to the estimate of x_0.
    """
    eta, s_noise = checked_eta(eta, s_noise)
    now, after = levels.sigmas[:-1], levels.sigmas[1:]
    up = eta * after * np.sqrt(1 - (after / now) ** 2)
    a = after / now * np.sqrt(1 - eta**2 * (1 - (after / now) ** 2))
    return levels.table(levels.sigmas, a=a, b=1 - a, s=s_noise * up, clip=clip)


def _churn(
    levels: Levels, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Float64Array, Float64Array]:
    """sigma^ of every step and the deviation of the noise that raises it there, float64 (K,) each."""
    s_churn = checked_number("s_churn", s_churn, 0, 1e9, "from 0 (none)")
    s_tmin = checked_number("s_tmin", s_tmin, 0, 1e9, "from 0")
    s_tmax = checked_number("s_tmax", s_tmax, 0, math.inf, "from 0")
    s_noise = checked_number("s_noise", s_noise, 0, 1e3, "from 0 to 1000")
    if s_churn == 0 and (s_tmin, s_tmax, s_noise) != (0.0, math.inf, 1.0):
        raise OptionError("s_churn is 0, so s_tmin, s_tmax and s_noise would not be used; leave them out")
    sigmas = levels.sigmas[:-1]
    gamma = np.where((s_tmin <= sigmas) & (sigmas <= s_tmax), min(s_churn / len(levels), math.sqrt(2) - 1), 0.0)
    if s_churn > 0 and not gamma.any():
        raise OptionError(f"s_churn is {s_churn}, but no level lies between s_tmin {s_tmin} and s_tmax {s_tmax}")
    return sigmas * (1 + gamma), s_noise * sigmas * np.sqrt(gamma * (2 + gamma))
