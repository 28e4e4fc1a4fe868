"""The forward process and the losses of DDPM (2006.11239) and iDDPM (2102.09672) on torch tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError

Loss = Literal["simple", "vlb", "hybrid"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]

PIXEL = 2.0 / 255.0
"""Distance of two neighbouring 8-bit values in [-1, 1]."""


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution: mean and log variance, broadcastable tensors."""

    mean: Tensor
    log_variance: Tensor

    def kl(self, other: Gaussian) -> Tensor:
        """KL(self || other) in nats, element by element."""
        difference = self.log_variance - other.log_variance
        scaled = (self.mean - other.mean).square() * torch.exp(-other.log_variance)
        return 0.5 * (difference.exp() - 1 - difference + scaled)

    def discretised_nll(self, x: Tensor) -> Tensor:
        """-log of the mass in the 8-bit bin around x in [-1, 1], in nats (DDPM eq. 13); the end bins are open."""
        scale = torch.exp(-0.5 * self.log_variance)
        upper = torch.special.ndtr((x - self.mean + PIXEL / 2) * scale)
        lower = torch.special.ndtr((x - self.mean - PIXEL / 2) * scale)
        mass = torch.where(x < -1 + PIXEL / 4, upper, torch.where(x > 1 - PIXEL / 4, 1 - lower, upper - lower))
        return -mass.clamp(min=1e-12).log()


class Diffusion(nn.Module):
    """q(x_t | x_0), the posteriors and the losses of one schedule.

    Args:
        schedule: the forward process, T timesteps.
        prediction_type: what the network returns: "epsilon", "sample" (x_0) or "v_prediction" (2202.00512).
        learn_variance: whether its second C channels interpolate the log variance (iDDPM eq. 15).

    All `t` are int64 of shape (B,); images are float32 (B, C, H, W) in [-1, 1].
    """

    signal: Tensor
    noise: Tensor
    from_x0: Tensor
    from_xt: Tensor
    log_beta: Tensor
    log_beta_tilde: Tensor

    def __init__(self, schedule: Schedule, prediction_type: PredictionType, learn_variance: bool) -> None:
        super().__init__()
        if prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise OptionError(
                f"prediction_type is {prediction_type!r}; expected 'epsilon', 'sample' or 'v_prediction'."
            )
        self.schedule, self.prediction_type, self.learn_variance = schedule, prediction_type, learn_variance
        from_x0, from_xt = schedule.posterior_mean_coefficients
        for name, values in {
            "signal": np.sqrt(schedule.alphas_cumprod),
            "noise": np.sqrt(1 - schedule.alphas_cumprod),
            "from_x0": from_x0,
            "from_xt": from_xt,
            "log_beta": np.log(schedule.betas),
            "log_beta_tilde": schedule.posterior_log_variance_clipped,
        }.items():
            self._constant(name, values)

    def _constant(self, name: str, values: NDArray[np.float64]) -> None:
        # float64 until the last moment, so that a model.to(dtype) cannot round the schedule twice
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None, None], persistent=False)

    def q_sample(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (DDPM eq. 4)."""
        return self.signal[t] * x0 + self.noise[t] * epsilon

    def target(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """What the network should return: eps, x_0 or v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0."""
        if self.prediction_type == "epsilon":
            return epsilon
        if self.prediction_type == "sample":
            return x0
        return self.signal[t] * epsilon - self.noise[t] * x0

    def denoised(self, output: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The estimate of x_0 that a prediction means."""
        if self.prediction_type == "epsilon":
            return (xt - self.noise[t] * output) / self.signal[t]
        if self.prediction_type == "sample":
            return output
        return self.signal[t] * xt - self.noise[t] * output

    def posterior(self, x0: Tensor, xt: Tensor, t: Tensor) -> Gaussian:
        """q(x_{t-1} | x_t, x_0) (DDPM eq. 7), its log variance clipped at t = 0."""
        return Gaussian(self.from_x0[t] * x0 + self.from_xt[t] * xt, self.log_beta_tilde[t])

    def model(self, output: Tensor, xt: Tensor, t: Tensor) -> Gaussian:
        """p(x_{t-1} | x_t) of the network's output; without a learned variance it is beta_t."""
        prediction, v = output.chunk(2, dim=1) if self.learn_variance else (output, None)
        mean = self.posterior(self.denoised(prediction, xt, t), xt, t).mean
        if v is None:
            return Gaussian(mean, self.log_beta[t])
        share = (v + 1) * 0.5
        return Gaussian(mean, share * self.log_beta[t] + (1 - share) * self.log_beta_tilde[t])

    def vlb(self, output: Tensor, x0: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """L_{t-1}, or the discretised L_0 where t = 0, in bits per dimension: (B,)."""
        model = self.model(output, xt, t)
        kl = self.posterior(x0, xt, t).kl(model).flatten(1).mean(1)
        nll = model.discretised_nll(x0).flatten(1).mean(1)
        return torch.where(t == 0, nll, kl) / math.log(2.0)

    def loss(self, kind: Loss, output: Tensor, x0: Tensor, t: Tensor, epsilon: Tensor) -> Tensor:
        """The training loss of each image, (B,).

        "simple": mean squared error of the prediction (DDPM eq. 14). "vlb": T times the bound's term at t.
        "hybrid": simple + 0.001 vlb, where the bound trains the variance alone (iDDPM eq. 16).

        Raises:
            OptionError: "hybrid" without a learned variance, or an unknown kind.
        """
        xt = self.q_sample(x0, t, epsilon)
        if kind == "vlb":
            return len(self.schedule) * self.vlb(output, x0, xt, t)
        prediction = output.chunk(2, dim=1)[0] if self.learn_variance else output
        simple = (prediction - self.target(x0, t, epsilon)).square().flatten(1).mean(1)
        if kind == "simple":
            return simple
        if kind != "hybrid":
            raise OptionError(f"loss is {kind!r}; expected 'simple', 'vlb' or 'hybrid'.")
        if not self.learn_variance:
            raise OptionError(
                "The hybrid loss trains a learned variance, and this network has none: set learn_variance."
            )
        frozen = torch.cat([prediction.detach(), output.chunk(2, dim=1)[1]], dim=1)
        return simple + 0.001 * len(self.schedule) * self.vlb(frozen, x0, xt, t)
