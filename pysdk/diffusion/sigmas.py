"""Noise levels sigma of a chain, spread by a rule: K descending numbers. Names and formulas are k-diffusion's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pysdk.diffusion.schedule import Float64Array


def karras(steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Float64Array:
    """sigma^(1/rho) falls in equal steps (Karras et al., 2022, eq. 5, https://arxiv.org/abs/2206.00364)."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels: Float64Array = np.linspace(high, low, steps, dtype=np.float64) ** rho
    return levels


def exponential(steps: int, sigma_min: float, sigma_max: float) -> Float64Array:
    """log(sigma) falls in equal steps."""
    return np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), steps))


def polyexponential(steps: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> Float64Array:
    """log(sigma) = log(sigma_min) + u^rho log(sigma_max/sigma_min), u from 1 to 0 in equal steps."""
    levels: Float64Array = sigma_min * (sigma_max / sigma_min) ** (np.linspace(1, 0, steps, dtype=np.float64) ** rho)
    return levels


SIGMAS: dict[str, Callable[..., Float64Array]] = {
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
}
