"""DDIM run backwards: from images to the noise that `ddim` turns into them (encoding).

References:
    DDIM: Song et al., Denoising Diffusion Implicit Models, 2020, section 4.3, https://arxiv.org/abs/2010.02502
    Its public form: `ddim_reverse_sample` of guided-diffusion, https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

import numpy as np

from pysdk.checks import check_choice
from pysdk.diffusion.prediction import read_output
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable, checked_clip
from pysdk.diffusion.timesteps import Int64Array
from pysdk.errors import OptionError
from pysdk.solvers import solver

NETWORK_TIMESTEPS = ("current", "next")
"""Which timestep the network is told."""


@solver
def reverse_ddim(
    schedule: Schedule,
    timesteps: Int64Array,
    *,
    prediction_type: str = "epsilon",
    network_timestep: str = "current",
    clip: Clip = Clip.none(),  # noqa: B008  # frozen
) -> StepTable:
    """x'/S_s = x/S_t + (N_s/S_s - N_t/S_t) eps, eps = (x - S r)/N, s the next noisier timestep (DDIM, eq. 13 and 14).

    It visits the timesteps of `ddim` in ascending order. The first row takes x as clean data (abar_t = 1) to the lowest
    timestep; the last row ends at the highest, where `ddim` with the same timesteps starts. So K rows encode what K
    rows of `ddim(eta=0, clip=Clip.none())` decode. Eq. 14 has no estimate of the data: nothing is clipped
    unless told.

    The table's `init_scale` is 0: the chain has no noise to start from, it needs images (`initial`).

    Args:
        network_timestep: what the network is told: "current", the timestep x is at (in the first row, which has none,
            the lowest); or "next", the one the row steps to, as in diffusers' `DDIMInverseScheduler`. Either way its
            output is read at the abar of x; clean data is read as noise and "sample" cannot be, so the first row reads
            at the lowest timestep, where diffusers divides by zero.
        clip: what is done to the estimate of x_0 in x' = S_s D + N_s eps; not in the first row, whose x is the data.

    Raises:
        OptionError: abar is 0 at a timestep visited: x holds nothing of the image there.
    """
    check_choice("network_timestep", network_timestep, NETWORK_TIMESTEPS)
    visited = timesteps[::-1]
    abar_s = schedule.alphas_cumprod[visited]
    if abar_s[-1] == 0:
        raise OptionError(
            "reverse_ddim cannot encode to a timestep where alphas_cumprod is 0 (zero terminal SNR): the image is gone "
            f"there; list timesteps below {visited[-1]}"
        )
    abar_t = np.append(1.0, abar_s[:-1])
    told = visited if network_timestep == "next" else np.append(visited[0], visited[:-1])
    read = np.append(abar_s[0], abar_s[:-1])
    p, q = read_output(prediction_type, read)
    if network_timestep == "next" and prediction_type == "v_prediction":  # at abar = 1, v is the noise
        (p[0],), (q[0],) = read_output("epsilon", read[:1])
    scale = np.sqrt(abar_s / abar_t)
    # S_s (N_s/S_s - N_t/S_t) / N of the timestep the output is read at
    per_eps = (np.sqrt(1 - abar_s) - scale * np.sqrt(1 - abar_t)) / np.sqrt(1 - read)
    b = np.zeros_like(scale)
    h = -per_eps * np.sqrt(read)
    if clip != Clip.none():
        b[1:] = np.sqrt(abar_s[1:])
        h[1:] -= b[1:]
    return StepTable.from_columns(
        t=told, p=p, q=q, a=scale + per_eps, b=b, h=h, clip=checked_clip(clip), init_scale=0.0
    )
