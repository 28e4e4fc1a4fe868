"""The variance-preserving SDE and its probability-flow ODE, on the discrete schedule.

With B = integral of beta from s to t = log(abar_s/abar_t) and score = -(x - S D)/N^2:

    dx = -x/2 dB + dw        dx = -(x + score)/2 dB backwards without noise

References:
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021,
        https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pysdk.diffusion.prediction import read_output
from pysdk.diffusion.schedule import Float64Array, Schedule
from pysdk.diffusion.table import Clip, StepTable, checked_clip
from pysdk.diffusion.timesteps import Int64Array
from pysdk.errors import OptionError
from pysdk.solvers import DEFAULT_CLIP, solver


@solver
def euler_maruyama(
    schedule: Schedule, timesteps: Int64Array, *, prediction_type: str = "epsilon", clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """x' = x + B (x/2 + score) + sqrt(B) z (Song et al., eq. 6 with eq. 11, Euler-Maruyama backwards in time).

    Last row: steps to abar = 1 without noise, the mean of the step (their `x_mean`). That is close to D only if the
    last timestep visited is low.

    Args:
        clip: what is done to the estimate of x_0 in the score.

    Raises:
        OptionError: abar is 0 at a timestep visited: B is infinite there.
    """
    abar, beta = _integrated(schedule, timesteps)
    p, q = read_output(prediction_type, abar)
    pull = beta / (1 - abar)
    s = np.append(np.sqrt(beta[:-1]), 0.0)
    return StepTable.from_columns(
        t=timesteps, p=p, q=q, a=1 + beta / 2 - pull, b=pull * np.sqrt(abar), s=s, clip=checked_clip(clip)
    )


@solver
def ode_euler(
    schedule: Schedule, timesteps: Int64Array, *, prediction_type: str = "epsilon", clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """x' = x + B/2 (x + score) (Song et al., eq. 13, Euler): first order.

    Last row: steps to abar = 1, which is close to D only if the last timestep visited is low.

    Args:
        clip: what is done to the estimate of x_0 in the score.

    Raises:
        OptionError: abar is 0 at a timestep visited: B is infinite there.
    """
    abar, beta = _integrated(schedule, timesteps)
    p, q = read_output(prediction_type, abar)
    a, b = _flow(abar, beta)
    return StepTable.from_columns(t=timesteps, p=p, q=q, a=1 + a, b=b, clip=checked_clip(clip))


@solver
def ode_heun(
    schedule: Schedule, timesteps: Int64Array, *, prediction_type: str = "epsilon", clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """`ode_euler`, then the mean of the slopes at both ends (Heun): second order.

    Two rows a step, the second at the timestep stepped to, from the x that the first saved. Last row: one Euler step to
    abar = 1, as there is no timestep to ask there. So K timesteps are 2 K - 1 calls of the network.

    Args:
        clip: what is done to the estimates of x_0 in the score.

    Raises:
        OptionError: abar is 0 at a timestep visited: B is infinite there.
    """
    visited = np.append(timesteps[:1], np.repeat(timesteps[1:], 2))
    abar, beta = _integrated(schedule, timesteps)
    columns: dict[str, Any] = {name: np.zeros(len(visited)) for name in ("a", "b", "g", "save")}
    a, b = _flow(abar, beta)
    columns["a"][0::2], columns["b"][0::2] = 1 + a, b
    columns["save"][0:-1:2] = 1.0
    # y + (x~ - y)/2 + half the slope at x~
    a, b = _flow(abar[1:], beta[:-1])
    columns["a"][1::2], columns["b"][1::2], columns["g"][1::2] = (1 + a) / 2, b / 2, 0.5
    p, q = read_output(prediction_type, schedule.alphas_cumprod[visited])
    return StepTable.from_columns(t=visited, p=p, q=q, **columns, clip=checked_clip(clip))


def _integrated(schedule: Schedule, timesteps: Int64Array) -> tuple[Float64Array, Float64Array]:
    """abar at the timesteps, and B of the step from each to the next, the last to abar = 1; float64 (K,)."""
    abar = schedule.alphas_cumprod[timesteps]
    if abar[0] == 0:
        raise OptionError(
            f"alphas_cumprod is 0 at timestep {timesteps[0]} (zero terminal SNR), an infinite step for the SDE and its "
            "ODE; list timesteps below, or use ddim or ddpm"
        )
    return abar, np.log(np.append(abar[1:], 1.0) / abar)


def _flow(abar: Float64Array, beta: Float64Array) -> tuple[Float64Array, Float64Array]:
    """(a, b) with B/2 (x + score) = a x + b D."""
    pull = beta / 2 / (1 - abar)
    return beta / 2 - pull, pull * np.sqrt(abar)
