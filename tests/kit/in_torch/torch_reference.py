"""The samplers of the papers, written from their equations in plain torch: what the native chain is held against.

There is no step table here. Coefficients are Python floats; the dtype of the noise is the dtype of the chain. Images
are (B, C, H, W); `noise(0)` is x_T and `noise(k + 1)` the z of step k.

References:
    DDPM: Ho et al., 2020, https://arxiv.org/abs/2006.11239
    iDDPM: Nichol & Dhariwal, 2021, https://arxiv.org/abs/2102.09672
    DDIM: Song et al., 2020, https://arxiv.org/abs/2010.02502
    Classifier-free guidance: Ho & Salimans, 2022, https://arxiv.org/abs/2207.12598
"""

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

Network = Callable[[Tensor, int], Tensor]
Noise = Callable[[int], Tensor]


def alpha_bar_pairs(betas: Sequence[float], timesteps: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """(t, abar_t, abar of the next timestep visited), abar = prod(1 - beta), 1 after the last."""
    products = list(itertools.accumulate((1 - beta for beta in betas), operator.mul))
    abar = [products[t] for t in timesteps]
    return zip(timesteps, abar, [*abar[1:], 1.0], strict=True)


def ddpm(
    network: Network,
    betas: Sequence[float],
    timesteps: Sequence[int],
    noise: Noise,
    *,
    variance: str,
    clip: float | None = None,
) -> Tensor:
    """Algorithm 2 of DDPM for a noise-predicting network; variance "small", "large" or "learned" (iDDPM, eq. 15).

    With `clip`, the mean is that of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7) at x_0 (eq. 15) clamped to [-clip, clip].
    """
    x = noise(0)
    for step, (t, abar, abar_next) in enumerate(alpha_bar_pairs(betas, timesteps)):
        alpha = abar / abar_next
        beta = 1 - alpha
        eps = network(x, t)
        if variance == "learned":
            eps, v = eps.chunk(2, dim=1)
        if clip is None:
            mean = (x - beta / math.sqrt(1 - abar) * eps) / math.sqrt(alpha)
        else:
            x0 = ((x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)).clamp(-clip, clip)
            mean = math.sqrt(abar_next) * beta / (1 - abar) * x0 + math.sqrt(alpha) * (1 - abar_next) / (1 - abar) * x
        if step == len(timesteps) - 1:
            return mean
        beta_tilde = (1 - abar_next) / (1 - abar) * beta
        if variance == "learned":
            share = (v + 1) / 2
            sigma = torch.exp(0.5 * (share * math.log(beta) + (1 - share) * math.log(beta_tilde)))
        else:
            sigma = math.sqrt({"small": beta_tilde, "large": beta}[variance])
        x = mean + sigma * noise(step + 1)
    raise ValueError("timesteps is empty")


def ddim(
    network: Network,
    betas: Sequence[float],
    timesteps: Sequence[int],
    noise: Noise,
    *,
    eta: float,
    clip: float | None = None,
) -> Tensor:
    """Eq. 12 of DDIM with sigma of eq. 16 for a noise-predicting network; `clip` clamps "predicted x_0" only."""
    x = noise(0)
    for step, (t, abar, abar_next) in enumerate(alpha_bar_pairs(betas, timesteps)):
        sigma = eta * math.sqrt((1 - abar_next) / (1 - abar)) * math.sqrt(1 - abar / abar_next)
        eps = network(x, t)
        x0 = (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar)
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
        x = math.sqrt(abar_next) * x0 + math.sqrt(1 - abar_next - sigma**2) * eps
        if sigma > 0:
            x = x + sigma * noise(step + 1)
    return x


def guided(
    network: Callable[[Tensor, int, Tensor], Tensor], labels: Tensor, null_label: int, weight: Tensor
) -> Network:
    """f = f_u + w (f_c - f_u) with w of shape (B,); learned-variance channels, if any, from the conditional output."""

    def run(x: Tensor, t: int) -> Tensor:
        conditional = network(x, t, labels)
        unconditional = network(x, t, torch.full_like(labels, null_label))
        channels = x.shape[1]
        w = weight.to(x.dtype).reshape(-1, 1, 1, 1)
        f = unconditional[:, :channels] + w * (conditional - unconditional)[:, :channels]
        return torch.cat([f, conditional[:, channels:]], dim=1)

    return run
