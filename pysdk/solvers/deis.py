"""DEIS: the noise extrapolated over log(sigma), an Adams-Bashforth step of the probability flow.

References:
    DEIS: Zhang & Chen, Fast Sampling of Diffusion Models with Exponential Integrator, 2022,
        https://arxiv.org/abs/2204.13902
"""

from __future__ import annotations

import numpy as np

from pysdk.diffusion.noise_levels import Levels
from pysdk.diffusion.schedule import Float64Array
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import DEFAULT_CLIP, solver


@solver
def deis(levels: Levels, *, clip: Clip = DEFAULT_CLIP) -> StepTable:
    """x' = x + C_0 eps + C_1 eps_before for x/S, eps = (x - D)/sigma (tAB-DEIS of order 2, eq. 13 and 14).

    C_j is the integral from sigma to sigma' of the line in log(sigma) that is 1 at the one level and 0 at the other.
    Every row saves its x, from which the next has eps_before; orders above 2 would need older ones. First row: order 1.
    Last row: order 1, ends on D.

    Args:
        clip: what is done to the estimate of x_0.
    """
    sigmas, count = levels.sigmas, len(levels)
    now, after = sigmas[:-1], sigmas[1:]
    from_now, from_before = after - now, np.zeros(count)
    rows = slice(1, count - 1)
    before = np.append(now[0], now[:-1])
    from_before[rows] = _integral(now[rows], after[rows], one=before[rows], zero=now[rows])
    from_now[rows] -= from_before[rows]
    return levels.table(
        sigmas,
        a=1 + from_now / now,
        b=-from_now / now,
        c1=-from_before / before,
        g=from_before / before,
        save=1.0,
        saved=before,
        clip=clip,
    )


def _integral(low: Float64Array, high: Float64Array, *, one: Float64Array, zero: Float64Array) -> Float64Array:
    """Integral over sigma from `low` to `high` of log(sigma/zero) / log(one/zero)."""
    value: Float64Array = (high * (np.log(high / zero) - 1) - low * (np.log(low / zero) - 1)) / np.log(one / zero)
    return value
