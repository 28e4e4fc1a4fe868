"""Solvers against their papers' formulas, written for x/S and D(x/S, sigma): whole chains in float64.

Each reference is a generator-free loop that lists (sigma, x/S) at every question and returns the last x/S.
"""

import itertools
import math

import numpy as np
import pytest
from kit.solvers.chains import SHAPE, denoiser, make_network, run_rows
from kit.solvers.rows import SHORT

from pysdk.diffusion.edm import EdmSchedule, preconditioning
from pysdk.diffusion.noise_levels import make_levels, sigmas_of
from pysdk.diffusion.table import Clip
from pysdk.solvers import PREDICTION_TYPES, make_table

TOLERANCE = 1e-9
CHURN = {"s_churn": 4.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}


def edm_algorithm_2(ask, x, sigmas, noise, *, s_churn, s_tmin, s_tmax, s_noise, second_order=True):
    """noise[0] raises the first level; the row before a step draws that of the others."""
    draws = iter(noise)
    for i, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
        gamma = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1) if s_tmin <= sigma <= s_tmax else 0.0
        raised = sigma + gamma * sigma
        if i > 0:
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * next(draws)
        slope = (x - ask(x, raised)) / raised
        new = x + (after - raised) * slope
        if second_order and after > 0:
            next(draws)  # the first row of two adds none
            new = x + (after - raised) * (slope + (new - ask(new, after)) / after) / 2
        x = new
    return x


def euler_ancestral(ask, x, sigmas, noise, *, eta, s_noise):
    for sigma, after, z in zip(sigmas[:-1], sigmas[1:], noise, strict=True):
        up = min(after, eta * math.sqrt(after**2 * (sigma**2 - after**2) / sigma**2))
        down = math.sqrt(after**2 - up**2)
        x = x + (x - ask(x, sigma)) / sigma * (down - sigma) + z * s_noise * up
    return x


def dpmpp_sde(ask, x, sigmas, noise, *, eta, s_noise, order, midpoint=False):
    """d/dtau of the estimate by the polynomial through the last ones, tau = 1 at the next level."""
    history = []
    for i, (sigma, after, z) in enumerate(zip(sigmas[:-1], sigmas[1:], noise, strict=True)):
        history.append((-math.log(sigma), ask(x, sigma)))
        if after == 0:
            return history[-1][1]
        h = math.log(sigma / after)
        u = h * (1 + eta)
        tau = [(moment - history[-1][0]) / h for moment, _ in history[-order:]]
        values = [value for _, value in history[-order:]]
        x = math.exp(-u) * x + (1 - math.exp(-u)) * values[-1]
        linear = (math.exp(-u) - 1 + u) / u
        if len(values) == 2 or (order == 2 and i > 0):
            slope = (values[-1] - values[-2]) / -tau[-2]
            x = x + ((1 - math.exp(-u)) / 2 if midpoint else linear) * slope
        if len(values) == 3:
            fit = np.polyfit(tau, np.stack([value.ravel() for value in values]), 2)
            curve, slope = (line.reshape(x.shape) for line in fit[:2])
            x = x + linear * slope - (linear / u - 0.5) * curve
        x = x + s_noise * after * math.sqrt(1 - math.exp(-2 * eta * h)) * z
    raise AssertionError


def annealed_langevin(ask, x, sigmas, noise, *, step_size, corrector_steps):
    draws = iter(noise)
    epsilon = step_size * sigmas[-2] ** 2
    for sigma in sigmas[:-1]:
        alpha = epsilon * sigma**2 / sigmas[-2] ** 2
        for _ in range(corrector_steps):
            x = x + alpha / 2 * (ask(x, sigma) - x) / sigma**2 + math.sqrt(alpha) * next(draws)
    return x + sigmas[-2] ** 2 * (ask(x, sigmas[-2]) - x) / sigmas[-2] ** 2


def predictor_corrector(ask, x, sigmas, noise, *, snr, corrector_steps):
    draws = iter(noise)
    for sigma, after in itertools.pairwise(sigmas):
        for _ in range(corrector_steps):
            e = 2 * (snr * sigma) ** 2
            x = x + e * (ask(x, sigma) - x) / sigma**2 + math.sqrt(2 * e) * next(draws)
        x = x + (sigma**2 - after**2) * (ask(x, sigma) - x) / sigma**2
        x = x + (math.sqrt(sigma**2 - after**2) * next(draws) if after > 0 else 0)
    return x


IN_SIGMA = {
    "euler": (CHURN, lambda *args, **options: edm_algorithm_2(*args, **options, second_order=False)),
    "heun": (CHURN, edm_algorithm_2),
    "euler_ancestral": ({"eta": 0.5, "s_noise": 1.1}, euler_ancestral),
    "dpmpp_2m_sde": (
        {"eta": 0.5, "s_noise": 0.9},
        lambda *args, **options: dpmpp_sde(*args, **options, order=2, midpoint=True),
    ),
    "dpmpp_3m_sde": ({"eta": 0.5, "s_noise": 0.9}, lambda *args, **options: dpmpp_sde(*args, **options, order=3)),
    "dpmpp_3m_sde, eta 1": ({"eta": 1.0}, lambda *args, eta: dpmpp_sde(*args, eta=eta, s_noise=1.0, order=3)),
    "annealed_langevin": ({"step_size": 0.2, "corrector_steps": 3}, annealed_langevin),
    "predictor_corrector": ({"snr": 0.2, "corrector_steps": 2}, predictor_corrector),
}
NETWORKS = {
    "edm": (EdmSchedule(), "edm"),
    "edm denoiser": (EdmSchedule(sigma_data=None), "sample"),
    **{prediction_type: (SHORT["linear"], prediction_type) for prediction_type in PREDICTION_TYPES},
}


@pytest.mark.parametrize("steps", [10, 50, 100])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", IN_SIGMA)
def test_in_sigma(name, network, steps):
    schedule, prediction_type = NETWORKS[network]
    options, reference = IN_SIGMA[name]
    chosen = {"steps": steps, "prediction_type": prediction_type}
    if network == "epsilon":
        chosen["sigmas"] = "karras"
    if network == "edm denoiser":
        chosen |= {"sigmas": "polyexponential", "rho": 1.5, "sigma_max": 60.0, "sigma_min": 0.01}
    table = make_table(name.split(",")[0], schedule, clip=Clip.none(), **chosen, **options)
    sigmas = make_levels(schedule, **chosen).sigmas
    rng = np.random.default_rng(0)
    start, noise = table.init_scale * rng.standard_normal(SHAPE), rng.standard_normal((len(table), *SHAPE))
    questions, x = run_rows(table, make_network(schedule, prediction_type), noise, start)
    asked = []

    def ask(x, sigma):
        asked.append((sigma, x))
        return denoiser(x, sigma)

    def signal(sigma):
        return 1.0 if isinstance(schedule, EdmSchedule) else 1 / math.hypot(1, sigma)

    def scaled(sigma, x):
        """What a network is given."""
        c_in = preconditioning(sigma, schedule.sigma_data)[0] if prediction_type == "edm" else signal(sigma)
        return c_in * x

    expected = reference(ask, start / signal(first_level(name, sigmas)), sigmas, noise, **options)
    worst = max(
        np.abs(ours - scaled(sigma, theirs)).max() for (_, ours), (sigma, theirs) in zip(questions, asked, strict=True)
    )
    assert max(worst, np.abs(x - expected).max()) < TOLERANCE
    times = [told_time(schedule, prediction_type, sigma) for sigma, _ in asked]
    np.testing.assert_allclose([t for t, _ in questions], times, rtol=1e-9, atol=1e-9)


def first_level(name, sigmas):
    """Where the first row is: churn may raise it."""
    count = len(sigmas) - 1
    churned = name in ("euler", "heun") and CHURN["s_tmin"] <= sigmas[0] <= CHURN["s_tmax"]
    return sigmas[0] * (1 + min(CHURN["s_churn"] / count, math.sqrt(2) - 1)) if churned else sigmas[0]


def told_time(schedule, prediction_type, sigma):
    if prediction_type == "edm":
        return math.log(sigma) / 4
    if isinstance(schedule, EdmSchedule):
        return sigma
    known = sigmas_of(schedule)  # k-diffusion: between neighbours, linear in log sigma
    low = min(int(np.searchsorted(known, sigma * (1 + 1e-12), side="right")) - 1, len(known) - 2)
    share = (math.log(sigma) - math.log(known[low])) / (math.log(known[low + 1]) - math.log(known[low]))
    return low + share


def euler_maruyama(ask, x, abar, noise):
    """dx = -beta x/2 dt + sqrt(beta) dw (Song et al., eq. 11), backwards by eq. 6, Euler-Maruyama."""
    for now, after, z in zip(abar, np.append(abar[1:], 1.0), noise, strict=True):
        beta = math.log(after / now)
        score = (math.sqrt(now) * ask(x, now) - x) / (1 - now)
        x = x - beta * (-x / 2 - score) + (math.sqrt(beta) * z if after < 1 else 0)
    return x


def probability_flow(ask, x, abar, second_order):
    """dx = (-beta x/2 - beta score/2) dt (Song et al., eq. 13), backwards."""

    def slope(x, abar):
        return -x / 2 - (math.sqrt(abar) * ask(x, abar) - x) / (1 - abar) / 2

    for now, after in zip(abar, np.append(abar[1:], 1.0), strict=True):
        beta = math.log(after / now)
        first = slope(x, now)
        new = x - beta * first
        x = x - beta * (first + slope(new, after)) / 2 if second_order and after < 1 else new
    return x


VP = {
    "euler_maruyama": euler_maruyama,
    "ode_euler": lambda ask, x, abar, _: probability_flow(ask, x, abar, False),
    "ode_heun": lambda ask, x, abar, _: probability_flow(ask, x, abar, True),
}


@pytest.mark.parametrize("steps", [10, 50, 100])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("schedule", SHORT.values(), ids=SHORT)
@pytest.mark.parametrize("name", VP)
def test_vp(name, schedule, prediction_type, steps):
    table = make_table(name, schedule, steps=steps, prediction_type=prediction_type, clip=Clip.none())
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal(SHAPE), rng.standard_normal((len(table), *SHAPE))
    questions, x = run_rows(table, make_network(schedule, prediction_type), noise, start)
    asked = []

    def ask(x, abar):
        asked.append((abar, x))
        return denoiser(x / math.sqrt(abar), math.sqrt(1 / abar - 1))

    visited = np.arange(steps)[::-1] * (100 // steps)
    expected = VP[name](ask, start, schedule.alphas_cumprod[visited], noise)
    scale = max(1.0, *(np.abs(x).max() for _, x in asked))
    worst = max(np.abs(a - b).max() for (_, a), (_, b) in zip(questions, asked, strict=True))
    assert max(worst, np.abs(x - expected).max()) < TOLERANCE * scale
    np.testing.assert_array_equal([schedule.alphas_cumprod[int(t)] for t, _ in questions], [abar for abar, _ in asked])
