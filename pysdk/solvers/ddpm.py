"""DDPM: ancestral sampling with beta, beta-tilde or a learned variance.

References:
    DDPM: Ho et al., Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
    iDDPM: Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pysdk.checks import check_choice, check_flags
from pysdk.diffusion.prediction import read_output
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable, checked_clip
from pysdk.diffusion.timesteps import Int64Array
from pysdk.solvers import DEFAULT_CLIP, solver

VARIANCES = {
    "small": "small",
    "large": "large",
    "learned": "learned",
    "fixed_small": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}
"""Names of DDPM's variances, ours and diffusers', to ours."""

_SMALLEST_VARIANCE = 1e-20
"""diffusers' stand-in for a beta_tilde of 0."""


@solver
def ddpm(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str = "epsilon",
    variance: str = "small",
    final_noise: bool = False,
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """Ancestral sampling: x' ~ q(x_s | x_t, x_0 = D) (DDPM, Algorithm 2 in the form of eq. 7).

    A strided chain is the same on the respaced process, beta_t = 1 - abar_t/abar_s (iDDPM, section 4). The last row has
    s = 0, a = 0, b = 1: the chain ends on D.

    Args:
        variance: s^2 is beta_tilde_t ("small"), beta_t ("large"), or read from the second half of the network's
            channels ("learned", iDDPM eq. 15; the caller checks that there is one). diffusers' names "fixed_small",
            "fixed_large" and "learned_range" mean the same.
        final_noise: whether the last row, too, adds s z, unless its timestep is 0, as diffusers' scheduler does: the
            images then keep the noise of that timestep with "large", next to none with "small".
        clip: what is done to the estimate of x_0.
    """
    check_choice("variance", variance, VARIANCES)
    check_flags(final_noise=final_noise)
    p, q = read_output(prediction_type, schedule.alphas_cumprod[timesteps])
    process = schedule.respace(timesteps[::-1])  # ascending; rows descend
    from_x0, from_xt = process.posterior_mean_coefficients
    learned = VARIANCES[variance] == "learned"
    if learned:
        s: NDArray[np.float64] = np.ones(len(process))
    else:
        s = np.sqrt(process.betas if VARIANCES[variance] == "large" else process.posterior_variance)
    log_beta_tilde = process.posterior_log_variance_clipped.copy()
    if not final_noise or timesteps[-1] == 0:
        s[0] = 0.0  # the last row
    else:
        log_beta_tilde[0] = np.log(_SMALLEST_VARIANCE)
    return StepTable.from_columns(
        t=timesteps,
        p=p,
        q=q,
        a=from_xt[::-1],
        b=from_x0[::-1],
        s=s[::-1],
        log_beta=np.log(process.betas)[::-1] if learned else 0.0,
        log_beta_tilde=log_beta_tilde[::-1] if learned else 0.0,
        clip=checked_clip(clip),
        learned_variance=learned,
    )
