"""UniPC: a multistep predictor whose corrector costs no further call of the network.

References:
    UniPC: Zhao et al., A Unified Predictor-Corrector Framework, 2023, https://arxiv.org/abs/2302.04867
"""

from __future__ import annotations

import numpy as np

from pysdk.checks import check_choice
from pysdk.diffusion.noise_levels import Levels
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import DEFAULT_CLIP, solver

SOLVER_TYPES = ("bh2", "bh1")
"""B(h) = e^-h - 1, or -h (UniPC, section 3.1)."""


@solver
def unipc(levels: Levels, *, solver_type: str = "bh2", clip: Clip = DEFAULT_CLIP) -> StepTable:
    """UniPC-2 for the data estimate, for x/S (UniPC, Algorithms 5 and 6 with p = 2), one row a step.

        x~' = e^-h x + (1 - e^-h) D - B/2 (d1 - D)/r                                 predictor, r = -h_before/h
        x'  = e^-h x + (1 - e^-h) D - B (w_1 (d1 - D)/r + w_2 (D' - D))              corrector, once D' is known
        w_1 + w_2 = g_1, w_1 r + w_2 = g_2;  g_1 = ((e^-h - 1)/-h - 1)/B, g_2 = 2 ((g_1 B)/-h - 1/2)/B

    Both have e^-h x in common, so a row corrects the x~ it is given by D, d1 and d2 alone and predicts the next. First
    row: order 1, and so is its correction (w_2 = 1/2). Last row: ends on D. UniPC-3 would need a fourth estimate.

    Args:
        solver_type: B is e^-h - 1 ("bh2") or -h ("bh1").
        clip: what is done to the estimate of x_0.
    """
    check_choice("solver_type", solver_type, SOLVER_TYPES)
    count = len(levels)
    h = np.diff(-np.log(levels.sigmas[:-1]))
    decay, fall = np.exp(-h), np.expm1(-h)
    scale = fall if solver_type == "bh2" else -h
    ratio = np.ones_like(h)
    ratio[1:] = -h[:-1] / h[1:]
    has_before = np.arange(count - 1) >= 1
    # predictor: x~' = decay x + from_now D + from_before d1
    from_before = np.where(has_before, -scale / (2 * ratio), 0.0)
    from_now = -fall - from_before
    # corrector, where D' is the estimate of the row after: weights of d1 - D and D' - D
    first = (fall / -h - 1) / scale
    second = 2 * (first * scale / -h - 0.5) / scale
    singular = np.where(has_before, ratio - 1, 1.0)
    w_1 = np.where(has_before, (second - first) / singular, 0.0)
    w_2 = np.where(has_before, first - w_1, 0.5)
    of_next, of_before = -scale * w_2, -scale * w_1 / ratio
    of_now = -fall - of_next - of_before
    a, b, c1, c2 = (np.zeros(count) for _ in range(4))
    a[:-1], b[:-1], c1[:-1] = decay, from_now, from_before
    b[-1] = 1.0
    b[1:-1] += decay[1:] * of_next[:-1]
    c1[1:-1] += decay[1:] * (of_now - from_now)[:-1]
    c2[1:-1] += decay[1:] * (of_before - from_before)[:-1]
    return levels.table(levels.sigmas, a=a, b=b, c1=c1, c2=c2, clip=clip)
