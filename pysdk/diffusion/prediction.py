"""What a network's output is, and how the data is read from it.

References:
    DDPM: Ho et al., Denoising Diffusion Probabilistic Models, 2020, https://arxiv.org/abs/2006.11239
    v-prediction: Salimans & Ho, Progressive Distillation, 2022, https://arxiv.org/abs/2202.00512
"""

from __future__ import annotations

import numpy as np

from pysdk.diffusion.schedule import Float64Array
from pysdk.errors import OptionError

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


def read_output(prediction_type: str, alphas_cumprod: Float64Array) -> tuple[Float64Array, Float64Array]:
    """(p, q) with x_0 = p x + q f for a network output f; all float64 (K,).

    epsilon:       x_0 = (x - N f) / S      (DDPM, eq. 15)
    sample:        x_0 = f
    v_prediction:  x_0 = S x - N f          (Salimans & Ho, appendix D)

    Raises:
        OptionError: another prediction type, or epsilon where abar is 0 and x holds no trace of x_0.
    """
    return read_signal(prediction_type, np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod))


def read_signal(prediction_type: str, signal: Float64Array, noise: Float64Array) -> tuple[Float64Array, Float64Array]:
    """`read_output` from S and N themselves."""
    if prediction_type == "epsilon":
        if np.any(signal == 0):
            raise OptionError(
                "prediction_type is 'epsilon', but alphas_cumprod is 0 at a timestep visited (zero terminal SNR): "
                "noise says nothing about x_0 there; use a network of 'v_prediction' or 'sample', or skip the timestep"
            )
        return 1 / signal, -noise / signal
    if prediction_type == "sample":
        return np.zeros_like(signal), np.ones_like(signal)
    if prediction_type == "v_prediction":
        return signal, -noise
    raise OptionError(f"prediction_type is {prediction_type!r}, expected one of {list(PREDICTION_TYPES)}")
