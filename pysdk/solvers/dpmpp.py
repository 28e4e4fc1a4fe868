"""DPM-Solver++: exponential integrators for the data estimate, multistep, as an ODE or an SDE.

Written for x/S (`pysdk.diffusion.noise_levels`) with lambda = -log(sigma), h = lambda' - lambda, r = h_before/h.

References:
    DPM-Solver++: Lu et al., 2022, https://arxiv.org/abs/2211.01095
    The third-order and SDE forms, and the names, are those of k-diffusion, https://github.com/crowsonkb/k-diffusion
"""

from __future__ import annotations

import numpy as np

from pysdk.checks import check_choice
from pysdk.diffusion.noise_levels import Levels, checked_eta
from pysdk.diffusion.schedule import Float64Array
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import DEFAULT_CLIP, solver

SOLVER_TYPES = ("midpoint", "heun")
"""How the difference of two estimates is weighted, as in diffusers."""


@solver
def dpmpp_1(levels: Levels, *, clip: Clip = DEFAULT_CLIP) -> StepTable:
    """x' = e^-h x + (1 - e^-h) D (DPM-Solver++, eq. 8): DDIM with eta 0, Euler in sigma. Last row: ends on D.

    Args:
        clip: what is done to the estimate of x_0.
    """
    return _multistep(levels, order=1, clip=clip)


@solver
def dpmpp_2m(levels: Levels, *, solver_type: str = "midpoint", clip: Clip = DEFAULT_CLIP) -> StepTable:
    """x' = e^-h x + (1 - e^-h) D + w (D - D_before)/r (DPM-Solver++, Algorithm 2).

    First row: there is no D_before, order 1. Last row: h is infinite, order 1, ends on D (diffusers'
    `final_sigmas_type="zero"`).

    Args:
        solver_type: w is (1 - e^-h)/2 ("midpoint") or (e^-h - 1)/h + 1 ("heun").
        clip: what is done to the estimate of x_0.
    """
    check_choice("solver_type", solver_type, SOLVER_TYPES)
    return _multistep(levels, order=2, second=solver_type, clip=clip)


@solver
def dpmpp_3m(levels: Levels, *, solver_type: str = "midpoint", clip: Clip = DEFAULT_CLIP) -> StepTable:
    """Third order from three estimates (DPM-Solver++, appendix; the sum is in `_multistep`).

    First row: order 1, second row: order 2 of `solver_type`. Last row: order 1, ends on D; none before it is lowered
    (diffusers' `lower_order_final=False`).

    Args:
        solver_type: for the second row; see `dpmpp_2m`.
        clip: what is done to the estimate of x_0.
    """
    check_choice("solver_type", solver_type, SOLVER_TYPES)
    return _multistep(levels, order=3, second=solver_type, clip=clip)


@solver
def dpmpp_2m_sde(
    levels: Levels, *, eta: float = 1.0, s_noise: float = 1.0, solver_type: str = "midpoint", clip: Clip = DEFAULT_CLIP
) -> StepTable:
    """`dpmpp_2m` with (1 + eta) h for h, but in r, plus s_noise sigma' sqrt(1 - e^(-2 eta h)) z.

    First row: order 1. Last row: order 1, ends on D, without noise. eta 1 is diffusers' `sde-dpmsolver++`.

    Args:
        eta: in [0, 1]; 0 is `dpmpp_2m`.
        s_noise: scales the noise.
        solver_type: see `dpmpp_2m`.
        clip: what is done to the estimate of x_0.
    """
    check_choice("solver_type", solver_type, SOLVER_TYPES)
    eta, s_noise = checked_eta(eta, s_noise)
    return _multistep(levels, order=2, second=solver_type, eta=eta, s_noise=s_noise, clip=clip)


@solver
def dpmpp_3m_sde(levels: Levels, *, eta: float = 1.0, s_noise: float = 1.0, clip: Clip = DEFAULT_CLIP) -> StepTable:
    """`dpmpp_3m` with the noise of `dpmpp_2m_sde` (k-diffusion, `sample_dpmpp_3m_sde`).

    First row: order 1, second row: order 2 of type "heun". Last row: order 1, ends on D, without noise.

    Args:
        eta: in [0, 1]; 0 is deterministic.
        s_noise: scales the noise.
        clip: what is done to the estimate of x_0.
    """
    eta, s_noise = checked_eta(eta, s_noise)
    return _multistep(levels, order=3, second="heun", eta=eta, s_noise=s_noise, clip=clip)


def _multistep(
    levels: Levels, *, order: int, second: str = "midpoint", eta: float = 0.0, s_noise: float = 1.0, clip: Clip
) -> StepTable:
    """e^-u x + (1 - e^-u) D + phi_2 D_1 - phi_3 D_2, u = (1 + eta) h, phi_2 = (e^-u - 1)/u + 1, phi_3 = phi_2/u - 1/2.

    Order 2 has D_1 = (D - d1)/r_0 alone, with (1 - e^-u)/2 for phi_2 if "midpoint". Order 3 has, of the differences
    e_0 = (D - d1)/r_0 and e_1 = (d1 - d2)/r_1 with r_1 = h_before_that/h,

        D_1 = e_0 + (e_0 - e_1) r_0/(r_0 + r_1)        D_2 = (e_0 - e_1)/(r_0 + r_1)
    """
    count = len(levels)
    h = np.diff(-np.log(levels.sigmas[:-1]))  # for all rows but the last
    u = (1 + eta) * h
    a, b, c1, c2, s = (np.zeros(count) for _ in range(5))
    a[:-1], b[:-1] = np.exp(-u), -np.expm1(-u)
    b[-1] = 1.0
    s[:-1] = s_noise * levels.sigmas[1:-1] * np.sqrt(-np.expm1(-2 * eta * h))
    phi_2 = np.expm1(-u) / u + 1
    if order >= 2:
        rows = slice(1, min(count - 1, 2 if order == 3 else count))  # those with one estimate before, or used so
        weight = (b[:-1] / 2 if second == "midpoint" else phi_2)[rows] / _ratio(h, 1)[rows]
        b[rows] += weight
        c1[rows] -= weight
    if order == 3:
        rows = slice(2, count - 1)
        r_0, r_1 = _ratio(h, 1)[rows], _ratio(h, 2)[rows]
        of_1, of_2 = phi_2[rows], (phi_2 / u - 0.5)[rows]
        # D_1 and D_2 as multiples of e_0 and e_1
        of_e0 = (of_1 * (2 * r_0 + r_1) - of_2) / (r_0 + r_1)
        of_e1 = -(of_1 * r_0 - of_2) / (r_0 + r_1)
        b[rows] += of_e0 / r_0
        c1[rows] += of_e1 / r_1 - of_e0 / r_0
        c2[rows] -= of_e1 / r_1
    return levels.table(levels.sigmas, a=a, b=b, c1=c1, c2=c2, s=s, clip=clip)


def _ratio(h: Float64Array, back: int) -> Float64Array:
    """h of `back` rows before over h, float64 like h; 1 where there is none."""
    ratio = np.ones_like(h)
    ratio[back:] = h[:-back] / h[back:]
    return ratio
