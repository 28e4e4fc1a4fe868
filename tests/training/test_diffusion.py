"""The forward process, posteriors and losses against closed forms in float64."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pysdk.diffusion.schedule import Schedule
from pysdk.errors import OptionError
from pysdk.training.diffusion import PIXEL, Diffusion, Gaussian, Loss, PredictionType

SCHEDULE = Schedule.linear(100, 1e-3, 0.2)
PREDICTIONS = get_args(PredictionType)
TIMESTEPS = torch.tensor([0, 1, 50, 99])


def batch(channels: int = 2) -> tuple[Tensor, Tensor]:
    """Images in [-1, 1] and noise, one per timestep of TIMESTEPS."""
    return torch.rand(4, channels, 3, 3) * 2 - 1, torch.randn(4, channels, 3, 3)


def of_t(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values))[TIMESTEPS][:, None, None, None]


def test_q_sample_is_equation_4() -> None:
    x0, epsilon = batch()
    abar = of_t(SCHEDULE.alphas_cumprod)
    expected = abar.sqrt() * x0.double() + (1 - abar).sqrt() * epsilon.double()
    xt = Diffusion(SCHEDULE, "epsilon", False).q_sample(x0, TIMESTEPS, epsilon)
    torch.testing.assert_close(xt.double(), expected, rtol=1e-6, atol=1e-6)


def test_q_sample_has_the_moments_of_the_chain() -> None:
    """The one-step kernels q(x_t | x_{t-1}), applied one after the other, give mean and variance of q(x_t | x_0)."""
    mean, variance = 0.7, 0.0
    for beta in SCHEDULE.betas[:51]:
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    t = torch.full((1,), 50)
    draws = Diffusion(SCHEDULE, "epsilon", False).q_sample(torch.tensor(0.7), t, torch.randn(1, 1, 500, 500))
    assert float(draws.mean()) == pytest.approx(mean, abs=0.01)
    assert float(draws.var()) == pytest.approx(variance, rel=0.01)


def test_posterior_is_bayes_rule() -> None:
    """q(x_{t-1} | x_t, x_0) as the product of the normal densities q(x_t | x_{t-1}) and q(x_{t-1} | x_0)."""
    x0, xt = batch()
    beta, before = of_t(SCHEDULE.betas)[1:], of_t(SCHEDULE.alphas_cumprod_prev)[1:]
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * xt[1:].double() + before.sqrt() / (1 - before) * x0[1:].double()) / precision
    posterior = Diffusion(SCHEDULE, "epsilon", False).posterior(x0, xt, TIMESTEPS)
    torch.testing.assert_close(posterior.mean[1:].double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior.log_variance[1:].double(), -precision.log(), rtol=1e-5, atol=1e-5)
    assert torch.equal(posterior.mean[0], x0[0])


def test_kl_is_that_of_torch() -> None:
    first, second = (Gaussian(torch.randn(50).double(), torch.randn(50).double()) for _ in range(2))
    expected = kl_divergence(*(Normal(g.mean, (0.5 * g.log_variance).exp()) for g in (first, second)))
    torch.testing.assert_close(first.kl(second), expected)
    assert not first.kl(first).any()


@pytest.mark.parametrize("mean", [-3.0, -1.0, 0.1, 1.0])
@pytest.mark.parametrize("deviation", [0.001, 0.05, 1.0, 20.0])
def test_256_bins_hold_all_the_mass(mean: float, deviation: float) -> None:
    gaussian = Gaussian(torch.tensor(mean).double(), torch.tensor(2 * math.log(deviation)).double())
    bins = torch.arange(256).double() / 127.5 - 1
    assert float((-gaussian.discretised_nll(bins)).exp().sum()) == pytest.approx(1.0, abs=1e-9)
    inner = -gaussian.discretised_nll(bins[[100]]) if deviation == 1.0 else None
    if inner is not None:  # a narrow bin holds density times width
        density = Normal(mean, deviation).log_prob(bins[[100]].float()) + math.log(PIXEL)
        torch.testing.assert_close(inner.float(), density, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("learned", [False, True])
def test_target_means_the_clean_image(prediction: PredictionType, learned: bool) -> None:
    x0, epsilon = batch()
    diffusion = Diffusion(SCHEDULE, prediction, learned)
    xt = diffusion.q_sample(x0, TIMESTEPS, epsilon)
    target = diffusion.target(x0, TIMESTEPS, epsilon)
    torch.testing.assert_close(diffusion.denoised(target, xt, TIMESTEPS), x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_simple_loss_is_the_mean_squared_error(prediction: PredictionType) -> None:
    x0, epsilon = batch()
    output = torch.randn(4, 4, 3, 3)
    abar = of_t(SCHEDULE.alphas_cumprod).float()
    target = {"epsilon": epsilon, "sample": x0, "v_prediction": abar.sqrt() * epsilon - (1 - abar).sqrt() * x0}
    expected = ((output[:, :2] - target[prediction]) ** 2).mean((1, 2, 3))
    learned = Diffusion(SCHEDULE, prediction, True).loss("simple", output, x0, TIMESTEPS, epsilon)
    fixed = Diffusion(SCHEDULE, prediction, False).loss("simple", output[:, :2], x0, TIMESTEPS, epsilon)
    torch.testing.assert_close(learned, expected)
    assert torch.equal(learned, fixed)


@pytest.mark.parametrize("share", [-1.0, 0.0, 1.0])
def test_vlb_of_the_true_image_is_the_difference_of_variances(share: float) -> None:
    """With the right mean, KL = (exp(d) - 1 - d) / 2 for the difference d of the log variances (iDDPM eq. 15)."""
    x0, epsilon = batch()
    diffusion = Diffusion(SCHEDULE, "sample", True)
    xt = diffusion.q_sample(x0, TIMESTEPS, epsilon)
    bits = diffusion.vlb(torch.cat([x0, torch.full_like(x0, share)], 1), x0, xt, TIMESTEPS)
    log_tilde = of_t(SCHEDULE.posterior_log_variance_clipped)[1:, 0, 0, 0]
    log_beta = of_t(np.log(SCHEDULE.betas))[1:, 0, 0, 0]
    difference = (log_tilde - log_beta) * (share + 1) / 2
    expected = (difference.exp() - 1 - difference) / 2 / math.log(2)
    torch.testing.assert_close(bits[1:].double(), expected, rtol=1e-4, atol=1e-6)


def test_bound_of_the_exact_gaussian_denoiser_is_the_entropy() -> None:
    """Pixels are N(0, s^2). The exact reverse step is normal, so the terms of the bound add up to the entropy.

    E[x_0 | x_t] = sqrt(abar) s^2 / d x_t and Var[x_0 | x_t] = (1 - abar) s^2 / d with d = abar s^2 + 1 - abar; the
    variance of the step is beta_tilde + c_0^2 Var[x_0 | x_t]. Entropy of a pixel: log2(s sqrt(2 pi e) / bin).
    """
    s = 0.25
    diffusion = Diffusion(SCHEDULE, "sample", True)
    images = ((torch.randn(1, 1, 150, 150) * s).clamp(-1, 1) * 127.5).round() / 127.5
    c0, _ = SCHEDULE.posterior_mean_coefficients
    abar, terms = SCHEDULE.alphas_cumprod, []
    for t in range(100):
        at = torch.tensor([t])
        xt = diffusion.q_sample(images, at, torch.randn(images.shape))
        d = abar[t] * s**2 + 1 - abar[t]
        variance = SCHEDULE.posterior_variance[t] + c0[t] ** 2 * (1 - abar[t]) * s**2 / d
        log_beta, log_tilde = math.log(SCHEDULE.betas[t]), SCHEDULE.posterior_log_variance_clipped[t]
        share = (math.log(variance) - log_tilde) / max(log_beta - log_tilde, 1e-12)
        estimate = math.sqrt(abar[t]) * s**2 / d * xt
        output = torch.cat([estimate, torch.full_like(xt, 2 * share - 1)], 1)
        terms.append(float(diffusion.vlb(output, images, xt, at)))
        if t in (10, 60):  # one term: both the variance and, on average, the mean contribute
            ratio = SCHEDULE.posterior_variance[t] / variance
            assert terms[t] == pytest.approx(-0.5 * math.log2(ratio), rel=0.03)
            noise = torch.zeros(images.shape)
            assert torch.equal(
                diffusion.loss("vlb", output, images, at, noise),
                100 * diffusion.vlb(output, images, diffusion.q_sample(images, at, noise), at),
            )
    entropy = math.log2(s * math.sqrt(2 * math.pi * math.e) / PIXEL)
    assert sum(terms) == pytest.approx(entropy, rel=0.005)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_hybrid_loss_trains_the_variance_alone_through_the_bound(prediction: PredictionType) -> None:
    x0, epsilon = batch()
    diffusion = Diffusion(SCHEDULE, prediction, True)
    output = torch.randn(4, 4, 3, 3, requires_grad=True)

    def gradient(kind: Loss) -> Tensor:
        return torch.autograd.grad(diffusion.loss(kind, output, x0, TIMESTEPS, epsilon).sum(), output)[0]

    simple, vlb, hybrid = (gradient(kind) for kind in get_args(Loss))
    assert not simple[:, 2:].any()
    assert torch.equal(hybrid[:, :2], simple[:, :2])
    torch.testing.assert_close(hybrid[:, 2:], 0.001 * vlb[:, 2:])
    assert vlb[:, :2].any()
    assert hybrid[:, 2:].any()


def test_variance_of_a_network_without_one_is_beta() -> None:
    x0, epsilon = batch()
    model = Diffusion(SCHEDULE, "epsilon", False).model(epsilon, x0, TIMESTEPS)
    torch.testing.assert_close(model.log_variance.double(), of_t(SCHEDULE.betas).log(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("t", [0, 1, 99])
def test_losses_of_extreme_outputs_are_finite(t: int) -> None:
    x0, epsilon = batch()
    at = torch.full((4,), t)
    output = torch.full((4, 4, 3, 3), 3.0)
    for kind in get_args(Loss):
        assert Diffusion(SCHEDULE, "v_prediction", True).loss(kind, output, x0, at, epsilon).isfinite().all()


def test_schedule_is_no_weight() -> None:
    assert not Diffusion(SCHEDULE, "epsilon", True).state_dict()


def test_bad_options_are_refused() -> None:
    x0, epsilon = batch()
    with pytest.raises(OptionError, match="prediction_type is 'eps'"):
        Diffusion(SCHEDULE, "eps", False)  # type: ignore[arg-type]
    diffusion = Diffusion(SCHEDULE, "epsilon", False)
    with pytest.raises(OptionError, match="loss is 'l1'"):
        diffusion.loss("l1", epsilon, x0, TIMESTEPS, epsilon)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="set learn_variance"):
        diffusion.loss("hybrid", epsilon, x0, TIMESTEPS, epsilon)
