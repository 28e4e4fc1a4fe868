"""DDIM: deterministic to ancestral sampling with one option, eta.

References:
    DDIM: Song et al., Denoising Diffusion Implicit Models, 2020, https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

import numpy as np

from pysdk.checks import check_choice, check_flags, checked_number
from pysdk.diffusion.prediction import read_output
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable, checked_clip
from pysdk.diffusion.timesteps import Int64Array
from pysdk.solvers import DEFAULT_CLIP, solver

PREV_TIMESTEPS = ("next", "stride")
"""Which timestep a row of `ddim` steps to."""


@solver
def ddim(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str = "epsilon",
    eta: float = 0.0,
    use_clipped_model_output: bool = False,
    set_alpha_to_one: bool = True,
    prev_timestep: str = "next",
    clip: Clip = DEFAULT_CLIP,
) -> StepTable:
    """x' = S_s D + sqrt(N_s^2 - rho^2) eps + rho z, eps = (x - S_t x_0)/N_t (DDIM, eq. 12).

    rho = eta N_s/N_t sqrt(1 - abar_t/abar_s) (DDIM, eq. 16): eta 0 is deterministic, eta 1 is `ddpm(variance="small")`.

    Args:
        eta: in [0, 1].
        use_clipped_model_output: eps from the clipped estimate D, so that x, D and eps agree, instead of from r.
        set_alpha_to_one: abar_s in the last row is 1 and the chain ends on D; if False it is abar at timestep 0, and
            that little noise stays.
        prev_timestep: the timestep s that a row steps to: the "next" one visited, or, as in diffusers, the one a
            "stride" of T // K below t, which another spacing than "leading" may not visit; after the last if negative.
        clip: what is done to the estimate of x_0.
    """
    eta = checked_number("eta", eta, 0, 1, "from 0 (deterministic) to 1 (DDPM's small variance)")
    check_flags(use_clipped_model_output=use_clipped_model_output, set_alpha_to_one=set_alpha_to_one)
    check_choice("prev_timestep", prev_timestep, PREV_TIMESTEPS)
    following = np.append(timesteps[1:], -1)
    if prev_timestep == "stride":
        following = timesteps - len(schedule) // len(timesteps)
    abar_t = schedule.alphas_cumprod[timesteps]
    final = 1.0 if set_alpha_to_one else schedule.alphas_cumprod[0]
    abar_s = np.where(following >= 0, schedule.alphas_cumprod[following], final)
    p, q = read_output(prediction_type, abar_t)
    share = (1 - abar_t / abar_s) / (1 - abar_t)  # the part of N_s^2 that eta 1 renews; rounding keeps it <= 1
    rho = eta * np.sqrt((1 - abar_s) * share)
    direction = np.sqrt((1 - abar_s) * (1 - eta**2 * share))  # N_s^2 - rho^2, never negative
    from_xt = direction / np.sqrt(1 - abar_t)
    from_x0 = -from_xt * np.sqrt(abar_t)
    clean = np.sqrt(abar_s)
    b, h = (clean + from_x0, 0.0) if use_clipped_model_output else (clean, from_x0)
    return StepTable.from_columns(t=timesteps, p=p, q=q, a=from_xt, b=b, h=h, s=rho, clip=checked_clip(clip))
