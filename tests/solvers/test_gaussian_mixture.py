"""The native chain samples the distribution it must: a Gaussian mixture, whose denoiser has a closed form.

With x_t = S x_0 + N e and x_0 ~ sum_k w_k N(mu_k, sigma_k^2 I), E[x_0 | x_t] is the mean over components, weighted by
their posterior probability, of mu_k + S sigma_k^2 / (S^2 sigma_k^2 + N^2) (x_t - S mu_k). Images are (2, 1, 1).

Two tests are made of every sample: the energy distance sees masses and places, Kolmogorov-Smirnov of the true density
at the samples sees widths (it also sees the discretisation of 250 steps, so the chains here are longer).
"""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from pysdk import _native
from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import sigmas_of
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip, StepTable
from pysdk.solvers import SOLVERS, make_table

pytestmark = pytest.mark.slow

WEIGHTS = np.array([0.5, 0.3, 0.2])
MEANS = np.array([[-0.8, -0.6], [0.7, -0.5], [0.2, 0.9]])
DEVIATIONS = np.array([0.15, 0.25, 0.35])
COUNT = 1000
SCHEDULES = {"linear": Schedule.linear(), "cosine": Schedule.cosine(), "edm": EdmSchedule(sigma_data=None)}
LEVEL = 0.01


def true_samples(rng, count=COUNT):
    component = rng.choice(len(WEIGHTS), size=count, p=WEIGHTS)
    return MEANS[component] + DEVIATIONS[component, None] * rng.standard_normal((count, 2))


def denoised(x, abar):
    """E[x_0 | x_t = x], float64 (n, 2)."""
    signal, noise_variance = np.sqrt(abar), 1 - abar
    variance = abar * DEVIATIONS**2 + noise_variance
    offset = x[:, None] - signal * MEANS
    logits = np.log(WEIGHTS / variance) - 0.5 * (offset**2).sum(2) / variance
    posterior = np.exp(logits - logits.max(1, keepdims=True))
    posterior /= posterior.sum(1, keepdims=True)
    means = MEANS + (signal * DEVIATIONS**2 / variance)[:, None] * offset
    return (posterior[:, :, None] * means).sum(1)


def abar_at(schedule, t):
    """S^2 at the timestep, or at sigma as if S were 1/sqrt(1 + sigma^2)."""
    if isinstance(schedule, EdmSchedule):
        return 1 / (1 + t**2)
    if t == int(t):
        return schedule.alphas_cumprod[int(t)]
    return 1 / (1 + np.exp(2 * np.interp(t, np.arange(len(schedule)), np.log(sigmas_of(schedule)))))


def native_samples(table, schedule, prediction_type="epsilon", seed=7):
    chain = _native.Chain(batch=COUNT, shape=(2, 1, 1), out_channels=2 * (1 + table.learned_variance))

    def network():
        x = chain.network_input.reshape(COUNT, 2).astype(np.float64)
        abar = abar_at(schedule, float(chain.network_time[0]))
        x = x * np.sqrt(abar) if isinstance(schedule, EdmSchedule) else x
        x0 = denoised(x, abar)
        eps = (x - np.sqrt(abar) * x0) / np.sqrt(1 - abar)
        v = np.sqrt(abar) * eps - np.sqrt(1 - abar) * x0
        output = {"epsilon": eps, "sample": x0, "v_prediction": v}[prediction_type]
        chain.network_output[:, :2, 0, 0] = output
        chain.network_output[:, 2:] = 0.0  # learned variance: half way, on the log scale

    chain.attach(network)
    chain.begin(
        table.native,
        seeds=np.full(COUNT, seed, dtype=np.uint64),
        images=np.arange(COUNT, dtype=np.uint64),
    )
    chain.advance(len(table))
    return chain.x.reshape(COUNT, 2).astype(np.float64)


def energy_test(first, second, rng, permutations=300):
    """P value that both come from one distribution: energy distance among random splits (Szekely & Rizzo, 2004)."""
    pooled = np.concatenate([first, second])
    distance = cdist(pooled, pooled)
    sign = np.repeat([1.0, -1.0], [len(first), len(second)])
    splits = np.stack([sign, *(rng.permutation(sign) for _ in range(permutations))], axis=1)
    energy = -(splits * (distance @ splits)).sum(0)  # 2 E|X - Y| - E|X - X'| - E|Y - Y'| up to a constant factor
    return (energy >= energy[0]).mean()


def density_test(samples, truth):
    """P value that the mixture's density at both has one distribution."""

    def density(x):
        offset = x[:, None] - MEANS
        return (WEIGHTS / DEVIATIONS**2 * np.exp(-0.5 * (offset**2).sum(2) / DEVIATIONS**2)).sum(1)

    return ks_2samp(density(samples), density(truth)).pvalue


def p_value(samples):
    """The smaller of two, doubled for having looked twice (Bonferroni)."""
    rng = np.random.default_rng(0)
    return 2 * min(energy_test(samples, true_samples(rng), rng), density_test(samples, true_samples(rng, 20 * COUNT)))


def with_column(table, name, values):
    rows = table.rows.copy()
    rows[:, _native.STEP_COLUMNS.index(name)] = values
    return StepTable(rows, clip=table.clip)


@pytest.mark.parametrize(
    ("schedule", "name", "options"),
    [
        ("linear", "ddpm", {"variance": "small"}),
        ("linear", "ddpm", {"variance": "large"}),
        ("linear", "ddpm", {"variance": "learned"}),
        ("cosine", "ddpm", {"variance": "small"}),
        ("linear", "ddim", {"eta": 1.0}),
        ("cosine", "ddim", {"eta": 0.5}),
        ("linear", "ddim", {"eta": 0.0, "steps": 500, "spacing": "trailing"}),
        ("cosine", "ddim", {"eta": 0.0, "steps": 500, "spacing": "trailing"}),
        ("linear", "euler_maruyama", {}),
        ("linear", "ode_euler", {"steps": 500, "spacing": "trailing"}),
        ("linear", "ode_heun", {"steps": 200, "spacing": "trailing"}),
        ("linear", "euler", {"steps": 400, "sigmas": "karras"}),
        ("edm", "euler", {"steps": 400, "s_churn": 40.0}),
        ("linear", "heun", {"steps": 100, "sigmas": "karras"}),
        ("edm", "heun", {"steps": 200, "s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0}),
        ("cosine", "euler_ancestral", {"steps": 300, "spacing": "trailing"}),
        ("edm", "euler_ancestral", {"steps": 300}),
        ("edm", "dpmpp_1", {"steps": 400}),
        ("edm", "dpmpp_2m", {"steps": 100}),
        ("linear", "dpmpp_3m", {"steps": 100, "spacing": "trailing"}),
        ("edm", "dpmpp_2m_sde", {"steps": 200}),
        ("linear", "dpmpp_3m_sde", {"steps": 200, "sigmas": "exponential"}),
        ("edm", "unipc", {"steps": 100}),
        ("edm", "deis", {"steps": 100}),
        (
            "edm",
            "annealed_langevin",  # mixes slowly, so it needs many steps where sigma is that of the data
            {"steps": 40, "sigmas": "exponential", "sigma_min": 0.02, "sigma_max": 10.0, "corrector_steps": 40},
        ),
        ("edm", "predictor_corrector", {"steps": 300, "snr": 0.1}),
    ],
)
def test_samples_are_of_the_mixture(schedule, name, options):
    process = SCHEDULES[schedule]
    prediction_type = "sample" if schedule == "edm" else "epsilon"
    table = make_table(name, process, clip=Clip.none(), prediction_type=prediction_type, **options)
    assert p_value(native_samples(table, process, prediction_type)) > LEVEL


def test_every_solver_is_here():
    [rows] = [mark for mark in test_samples_are_of_the_mixture.pytestmark if mark.name == "parametrize"]
    assert {name for _, name, _ in rows.args[1]} == set(SOLVERS) - {"reverse_ddim"}  # which does not draw


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
def test_every_prediction_type_samples_the_mixture(prediction_type):
    schedule = SCHEDULES["cosine"]
    table = make_table("ddpm", schedule, clip=Clip.none(), prediction_type=prediction_type)
    assert p_value(native_samples(table, schedule, prediction_type)) > LEVEL


def wrong_table(mistake, schedule):
    table = make_table("ddpm", schedule, clip=Clip.none())
    sde = make_table("dpmpp_2m_sde", schedule, steps=200, clip=Clip.none())
    third = make_table("dpmpp_3m", schedule, steps=50, clip=Clip.none())
    s, t, b = (table.column(name) for name in ("s", "t", "b"))
    wrong = {
        "10% less noise": (table, "s", 0.9 * s),
        "variance for deviation": (table, "s", s**2),
        "no noise": (table, "s", 0.0),
        "b of the row before": (table, "b", np.roll(b, 1)),
        "half the noise of an SDE solver": (sde, "s", 0.5 * sde.column("s")),
        "older estimate of a multistep solver left out": (third, "c2", 0.0),
        "timestep late by 20": (table, "t", np.minimum(t + 20, 999)),
    }
    if mistake in wrong:
        return with_column(*wrong[mistake])
    return make_table("ddpm", SCHEDULES["cosine"], clip=Clip.none())


@pytest.mark.parametrize(
    "mistake",
    [
        "10% less noise",
        "variance for deviation",
        "no noise",
        "b of the row before",
        "half the noise of an SDE solver",
        "older estimate of a multistep solver left out",
        "timestep late by 20",
        "another schedule",
    ],
)
def test_wrong_chains_are_rejected(mistake):
    """The negative control."""
    schedule = SCHEDULES["linear"]
    assert p_value(native_samples(wrong_table(mistake, schedule), schedule)) < LEVEL


def test_truth_passes_and_a_small_shift_does_not():
    truth = true_samples(np.random.default_rng(1))
    assert p_value(truth) > LEVEL
    assert p_value(truth + 0.1) < LEVEL
