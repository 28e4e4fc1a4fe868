"""The bound on data whose answer is known: pixels of a normal distribution, with the denoiser and variance that fit it.

With x_0 ~ N(m, s^2) in every pixel, x_t = S x_0 + N z has variance v = S^2 s^2 + N^2 and
D = E[x_0 | x_t] = m + k (x_t - S m), k = S s^2 / v. So x_0 - D = (1 - k S)(x_0 - m) - k N z, and
p(x_{t-1} | x_t) = N(from_x0 D + from_xt x_t, beta_tilde + from_x0^2 s^2 N^2 / v) is exactly the reverse process: with
this as its learned variance, the bound of all terms is the negative log likelihood itself, on average.
"""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from pysdk import _native
from pysdk.diffusion.schedule import Schedule
from pysdk.likelihood.terms import Terms, make_terms, prior_nats

MEAN, DEVIATION = 0.1, 0.2
SHAPE = (1, 32, 32)
COUNT = 16
SIZE = COUNT * 32 * 32
SCHEDULE = Schedule.linear()


def coefficients(abar: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(k, Var(x_0 | x_t))."""
    variance = abar * DEVIATION**2 + 1 - abar
    return np.sqrt(abar) * DEVIATION**2 / variance, DEVIATION**2 * (1 - abar) / variance


def evaluate(pixels: NDArray[np.uint8], terms: Terms, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Terms in nats per pixel and squared errors, both (K,), averaged over all pixels."""
    bound = _native.Bound(batch=COUNT, shape=SHAPE, out_channels=1 + terms.learned_variance)
    process = SCHEDULE.respace(terms.timesteps[::-1])
    column = {name: terms.rows[:, i] for i, name in enumerate(_native.BOUND_COLUMNS)}

    def network() -> None:
        """Predicts x_0, and the variance above."""
        row = int(np.searchsorted(-terms.timesteps, -bound.network_time[0]))
        abar = process.alphas_cumprod[::-1][row]
        gain, left = coefficients(abar)
        bound.network_output[:, :1] = MEAN + gain * (bound.network_input - np.sqrt(abar) * MEAN)
        if terms.learned_variance:
            true = left if row == len(terms.rows) - 1 else np.exp(column["log_posterior"][row])
            true += 0 if row == len(terms.rows) - 1 else column["from_x0"][row] ** 2 * left
            low, high = column["log_low"][row], column["log_high"][row]
            bound.network_output[:, 1:] = 2 * (np.log(true) - low) / (high - low) - 1

    bound.attach(network)
    bound.begin(
        terms.rows,
        pixels=pixels,
        seeds=np.full(COUNT, seed, np.uint64),
        images=np.arange(COUNT, dtype=np.uint64),
        learned_variance=terms.learned_variance,
        clip_limit=np.inf,
    )
    bound.advance(len(terms.rows))
    return bound.terms.sum(0) / SIZE, bound.errors.sum(0) / SIZE


def gaussian_pixels(seed: int) -> NDArray[np.uint8]:
    x = np.random.default_rng(seed).normal(MEAN, DEVIATION, (COUNT, *SHAPE))
    return np.rint((x + 1) * 127.5).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_expected_terms_in_closed_form(variance: str) -> None:
    """E[(x_0 - D)^2] = (1 - k S)^2 (x_0 - m)^2 + k^2 N^2, and the KL of two normals with it."""
    timesteps = np.arange(990, -1, -30)
    terms = make_terms(SCHEDULE, timesteps, prediction_type="sample", variance=variance)
    pixels = gaussian_pixels(0)
    found, errors = evaluate(pixels, terms)
    abar = SCHEDULE.alphas_cumprod[timesteps]
    previous = np.append(abar[1:], 1.0)
    gain, _ = coefficients(abar)
    spread = np.mean((pixels / 127.5 - 1 - MEAN) ** 2)
    distance = (1 - gain * np.sqrt(abar)) ** 2 * spread + gain**2 * (1 - abar)
    beta = 1 - abar / previous
    tilde = beta * (1 - previous) / (1 - abar)
    with np.errstate(divide="ignore", invalid="ignore"):  # the decoder, whose tilde is 0
        model = beta if variance == "large" else tilde
        squared = (np.sqrt(previous) * beta / (1 - abar)) ** 2 * distance
        kl = 0.5 * (np.log(model / tilde) - 1 + tilde / model + squared / model)
    # a squared normal has a relative deviation of sqrt(2)
    deviation = 6 * np.sqrt(2 / SIZE)
    np.testing.assert_allclose(errors, distance, rtol=deviation)
    np.testing.assert_allclose(found[:-1], kl[:-1], rtol=2 * deviation)


def test_decoder_in_closed_form() -> None:
    """E[-log mass of a pixel's bin] by quadrature over the noise."""
    terms = make_terms(SCHEDULE, np.arange(999, -1, -1), prediction_type="sample", variance="small")
    pixels = np.repeat(np.array([0, 1, 128, 254, 255], np.uint8), SIZE // 5 + 1)[:SIZE].reshape(COUNT, *SHAPE)
    last = Terms(terms.timesteps[-1:], terms.weights[-1:], terms.rows[-1:], False, terms.final_alpha_cumprod)
    found, _ = evaluate(pixels, last)
    abar = SCHEDULE.alphas_cumprod[0]
    gain, _ = coefficients(abar)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    levels = np.arange(256)
    x0 = levels / 127.5 - 1
    sigma = np.sqrt(SCHEDULE.posterior_variance[1])
    mean = MEAN + gain * (np.sqrt(abar) * (x0[:, None] - MEAN) + np.sqrt(1 - abar) * nodes)
    upper = np.where(levels == 255, np.inf, x0 + 1 / 255)[:, None]
    lower = np.where(levels == 0, -np.inf, x0 - 1 / 255)[:, None]
    low, high = (lower - mean) / sigma, (upper - mean) / sigma
    mass = np.where(low > 0, norm.sf(low) - norm.sf(high), norm.cdf(high) - norm.cdf(low))
    expected = (-np.log(mass) * weights).sum(1) / weights.sum()
    assert found[0] == pytest.approx(expected[pixels].mean(), rel=0.02)


def test_bound_is_tight_for_the_true_reverse_process() -> None:
    """All 1000 terms add up to the entropy of the data, within their sampling error."""
    terms = make_terms(SCHEDULE, np.arange(999, -1, -1), prediction_type="sample", variance="learned")
    pixels = gaussian_pixels(1)
    found, _ = evaluate(pixels, terms)
    total = found.sum() + prior_nats(pixels, terms.final_alpha_cumprod, (-1.0, 1.0)).sum() / SIZE
    edges = (np.arange(257) - 0.5) / 127.5 - 1
    edges[[0, -1]] = -np.inf, np.inf
    mass = np.diff(norm.cdf(edges, MEAN, DEVIATION))
    truth = -np.log(mass)[pixels].mean()
    assert total / np.log(2) == pytest.approx(truth / np.log(2), abs=0.02)
    fixed = evaluate(pixels, make_terms(SCHEDULE, np.arange(999, -1, -1), prediction_type="sample", variance="small"))
    assert fixed[0].sum() > found.sum()  # any other variance is worse
