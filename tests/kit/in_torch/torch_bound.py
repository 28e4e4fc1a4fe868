"""The variational bound from its papers in float64 torch, independent of pysdk: what the native one is held against.

DDPM: Ho et al., 2020, eq. 5, 7 and 13. iDDPM: Nichol & Dhariwal, 2021, eq. 15 and section 4.
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

Network = Callable[[Tensor, int], Tensor]


def estimate(prediction_type: str, output: Tensor, xt: Tensor, abar: float) -> Tensor:
    """x_0 from the network's output."""
    if prediction_type == "epsilon":
        return (xt - math.sqrt(1 - abar) * output) / math.sqrt(abar)
    if prediction_type == "v_prediction":
        return math.sqrt(abar) * xt - math.sqrt(1 - abar) * output
    return output


def bin_mass(pixels: Tensor, x0: Tensor, mean: Tensor, sigma: Tensor, half: float) -> Tensor:
    """The integral of DDPM's eq. 13 over each pixel's bin, taken in whichever tail is the nearer."""
    high = torch.where(pixels == 255, torch.inf, (x0 + half - mean) / sigma)
    low = torch.where(pixels == 0, -torch.inf, (x0 - half - mean) / sigma)
    flip = low > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    return torch.special.ndtr(high) - torch.special.ndtr(low)


def bound(
    network: Network,
    betas: Sequence[float],
    timesteps: Sequence[int],
    pixels: Tensor,
    noise: Callable[[int], Tensor],
    *,
    prediction_type: str,
    variance: str,
    clip: float | None,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> tuple[Tensor, Tensor, Tensor]:
    """L_T (N,), the terms of `timesteps`, descending, (N, K), and mean squared errors in pixel units (N, K).

    `pixels` are whole numbers of shape (N, C, H, W), `noise(t)` the eps of x_t; terms are in bits per dimension.
    """
    unit = (value_range[1] - value_range[0]) / 255
    x0 = value_range[0] + unit * pixels.double()
    products = list(itertools.accumulate((1 - beta for beta in betas), operator.mul))
    abars = [products[t] for t in timesteps]
    terms, errors = [], []
    for i in reversed(range(len(timesteps))):
        t, abar, abar_prev = timesteps[i], abars[i], abars[i + 1] if i + 1 < len(abars) else 1.0
        beta = 1 - abar / abar_prev
        beta_tilde = (1 - abar_prev) / (1 - abar) * beta
        decodes = i == len(timesteps) - 1
        if decodes:  # log(0) is replaced by the value of the step before, in the chain's order
            after = abars[i - 1] if i else None
            beta_tilde = (1 - abar) / (1 - after) * (1 - after / abar) if after is not None else beta
        xt = math.sqrt(abar) * x0 + math.sqrt(1 - abar) * noise(t).double()
        output = network(xt, t)
        v = output[:, x0.shape[1] :] if variance == "learned" else None
        output = output[:, : x0.shape[1]]
        denoised = estimate(prediction_type, output, xt, abar)
        if clip is not None:
            denoised = denoised.clamp(-clip, clip)
        if v is not None:
            share = (v + 1) / 2
            sigma = torch.exp(0.5 * (share * math.log(beta) + (1 - share) * math.log(beta_tilde)))
        else:
            large = variance == "large" and not decodes
            sigma = torch.full_like(x0, math.sqrt(beta if large else beta_tilde))
        if decodes:
            nats = -bin_mass(pixels, x0, denoised, sigma, unit / 2).log()
        else:
            from_x0 = math.sqrt(abar_prev) * beta / (1 - abar)
            from_xt = math.sqrt(1 - beta) * (1 - abar_prev) / (1 - abar)
            posterior = Normal(from_x0 * x0 + from_xt * xt, math.sqrt(beta_tilde))
            nats = kl_divergence(posterior, Normal(from_x0 * denoised + from_xt * xt, sigma))
        terms.append(nats.flatten(1).mean(1) / math.log(2))
        errors.append(((x0 - denoised) / unit).square().flatten(1).mean(1))
    final = Normal(math.sqrt(abars[0]) * x0, math.sqrt(1 - abars[0]))
    prior = kl_divergence(final, Normal(torch.zeros_like(x0), 1.0)).flatten(1).mean(1) / math.log(2)
    return prior, torch.stack(terms[::-1], 1), torch.stack(errors[::-1], 1)
