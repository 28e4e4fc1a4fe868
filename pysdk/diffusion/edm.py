"""Networks of sigma: the forward process x = x_0 + sigma e and EDM's preconditioning.

References:
    EDM: Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022,
        https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pysdk.diffusion.schedule import Float64Array
from pysdk.errors import ScheduleError

EDM_PREDICTION_TYPES = ("edm", "sample")
"""The raw F(c_in x, ln(sigma)/4), and a whole denoiser D(x, sigma)."""


@dataclass(frozen=True)
class EdmSchedule:
    """The noise levels of a network that takes sigma instead of a timestep (EDM, table 1, last column).

    Args:
        sigma_min, sigma_max: where chains end and start by default.
        rho: how levels are spread (EDM, eq. 5); 7 in the paper.
        sigma_data: standard deviation of the training data, for the preconditioning of F; None for a whole denoiser,
            which preconditions itself.

    Raises:
        ScheduleError: not 0 < sigma_min < sigma_max, or rho or sigma_data not above 0, or not finite.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    sigma_data: float | None = 0.5

    def __post_init__(self) -> None:
        for name in ("sigma_min", "sigma_max", "rho", "sigma_data"):
            value = getattr(self, name)
            if name == "sigma_data" and value is None:
                continue
            if not isinstance(value, (int, float, np.integer, np.floating)) or not 0 < value < math.inf:
                raise ScheduleError(f"{name} is {value!r}, expected a finite number above 0")
            object.__setattr__(self, name, float(value))
        if self.sigma_min >= self.sigma_max:
            raise ScheduleError(f"sigma_min is {self.sigma_min}, expected less than sigma_max, {self.sigma_max}")


def preconditioning(sigma: Float64Array, sigma_data: float) -> tuple[Float64Array, Float64Array, Float64Array]:
    """(c_in, c_skip, c_out) of D(x, sigma) = c_skip x + c_out F(c_in x, ln(sigma)/4) (EDM, eq. 7 and table 1)."""
    total = sigma**2 + sigma_data**2
    return 1 / np.sqrt(total), sigma_data**2 / total, sigma * sigma_data / np.sqrt(total)
