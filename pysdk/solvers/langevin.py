"""Annealed Langevin dynamics, alone and as the corrector of a reverse-diffusion predictor.

Written for x/S (`pysdk.diffusion.noise_levels`), where the score is (D - x)/sigma^2. A corrector is a row that stays at
its level.

References:
    NCSN: Song & Ermon, Generative Modeling by Estimating Gradients of the Data Distribution, 2019,
        https://arxiv.org/abs/1907.05600
    Song et al., Score-Based Generative Modeling through Stochastic Differential Equations, 2021,
        https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

import numpy as np

from pysdk.checks import checked_number, whole_number
from pysdk.diffusion.noise_levels import Levels
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import DEFAULT_CLIP, solver


@solver
def annealed_langevin(
    levels: Levels, *, step_size: float = 0.1, corrector_steps: int = 5, clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """x' = x + alpha/2 score + sqrt(alpha) z, alpha = step_size sigma^2, repeated at every level (NCSN, Algorithm 1).

    NCSN's alpha_i = epsilon sigma_i^2/sigma_L^2 has step_size = epsilon/sigma_L^2. A level is entered with the x of the
    one before. Last row: one more call at the lowest level, ends on D (NCSNv2, 2006.09011, section 4). So K levels are
    K corrector_steps + 1 calls of the network.

    Args:
        step_size: alpha over sigma^2; in (0, 2].
        corrector_steps: steps at every level, 1 to 1000.
        clip: what is done to the estimate of x_0 in the score.
    """
    step_size = checked_number("step_size", step_size, 1e-9, 2, "above 0, at most 2")
    repeats = whole_number("corrector_steps", corrector_steps, 1, 1000)
    visited = np.append(np.repeat(levels.sigmas[:-1], repeats), [levels.sigmas[-2], 0.0])
    a = np.full(len(visited) - 1, 1 - step_size / 2)
    s = np.sqrt(step_size) * visited[:-1]
    a[-1], s[-1] = 0.0, 0.0
    return levels.table(visited, a=a, b=1 - a, s=s, clip=clip)


@solver
def predictor_corrector(
    levels: Levels, *, snr: float = 0.16, corrector_steps: int = 1, clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """Langevin steps at a level, then a reverse-diffusion step to the next (Song et al., Algorithm 2, VE form).

        corrector  x' = x + e score + sqrt(2 e) z, e = 2 snr^2 sigma^2
        predictor  x' = x + (sigma^2 - sigma'^2) score + sqrt(sigma^2 - sigma'^2) z

    Theirs has e = 2 (snr |z|/|score|)^2, which a table cannot hold, as it depends on x and z; here |score| is
    |z|/sigma, what it is on average. Last row: a predictor without noise, to sigma' = 0, ends on D. So K levels are
    K (corrector_steps + 1) calls of the network.

    Args:
        snr: signal-to-noise ratio of a corrector step; in (0, 0.7].
        corrector_steps: at every level, before its predictor; 0 to 1000.
        clip: what is done to the estimate of x_0 in the score.
    """
    snr = checked_number("snr", snr, 1e-9, 0.7, "above 0, at most 0.7")
    repeats = whole_number("corrector_steps", corrector_steps, 0, 1000)
    visited = np.append(np.repeat(levels.sigmas[:-1], repeats + 1), 0.0)
    now, after = visited[:-1], visited[1:]
    corrects = now == after
    e = 2 * snr**2
    a = np.where(corrects, 1 - e, (after / now) ** 2)
    s = np.where(corrects, np.sqrt(2 * e) * now, np.sqrt(now**2 - after**2))
    s[-1] = 0.0
    return levels.table(visited, a=a, b=1 - a, s=s, clip=clip)
