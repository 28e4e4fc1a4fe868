"""The forward process: closed forms, properties over random betas, and what is refused."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysdk.diffusion.schedule import SCHEDULES, Schedule, make_schedule
from pysdk.errors import OptionError, OptionTypeError, ScheduleError

BETAS = st.lists(st.floats(1e-6, 0.5), min_size=1, max_size=60)


@given(BETAS)
def test_snr_falls_and_alphas_cumprod_is_a_product(betas):
    schedule = Schedule.from_betas(betas)
    assert len(schedule) == len(betas)
    assert np.all(np.diff(schedule.snr) < 0)
    products = [math.prod(1 - beta for beta in betas[: t + 1]) for t in range(len(betas))]
    np.testing.assert_allclose(schedule.alphas_cumprod, products, rtol=1e-12)
    np.testing.assert_array_equal(schedule.alphas_cumprod_prev, [1.0, *schedule.alphas_cumprod[:-1]])


@given(BETAS)
def test_posterior_is_bayes_rule(betas):
    """Precision of q(x_{t-1} | x_t, x_0) = precision of its prior + of the likelihood (DDPM, eq. 6-7)."""
    schedule = Schedule.from_betas(betas)
    prior = 1 - schedule.alphas_cumprod_prev[1:]
    alpha, beta = schedule.alphas[1:], schedule.betas[1:]
    variance = 1 / (1 / prior + alpha / beta)
    np.testing.assert_allclose(schedule.posterior_variance[1:], variance, rtol=1e-8)
    from_x0, from_xt = schedule.posterior_mean_coefficients
    np.testing.assert_allclose(from_x0[1:], variance * np.sqrt(schedule.alphas_cumprod_prev[1:]) / prior, rtol=1e-8)
    np.testing.assert_allclose(from_xt[1:], variance * np.sqrt(alpha) / beta, rtol=1e-8)
    assert (from_x0[0], from_xt[0], schedule.posterior_variance[0]) == (1, 0, 0)


@given(BETAS, st.data())
def test_respaced_process_has_the_kept_alphas_cumprod(betas, data):
    schedule = Schedule.from_betas(betas)
    kept = np.array(sorted(data.draw(st.sets(st.integers(0, len(betas) - 1), min_size=1))))
    respaced = schedule.respace(kept)
    np.testing.assert_allclose(respaced.alphas_cumprod, schedule.alphas_cumprod[kept], rtol=1e-12)


def test_respacing_to_all_timesteps_changes_nothing():
    schedule = Schedule.linear()
    np.testing.assert_allclose(schedule.respace(np.arange(1000)).betas, schedule.betas, rtol=1e-11)


def test_linear_closed_form():
    betas = Schedule.linear().betas
    assert (len(betas), betas[0], betas[-1]) == (1000, 1e-4, 0.02)
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999, rtol=1e-9)


def test_cosine_closed_form():
    schedule = Schedule.cosine(timesteps=100)
    t = np.arange(1, 100)  # the last beta is clipped
    angle = 0.5 * np.pi * (t / 100 + 0.008) / 1.008
    expected = np.cos(angle) ** 2 / np.cos(0.5 * np.pi * 0.008 / 1.008) ** 2
    np.testing.assert_allclose(schedule.alphas_cumprod[:-1], expected, rtol=1e-10)
    assert schedule.betas[-1] == 0.999
    assert schedule.betas[-2] < 0.999


def test_cosine_is_diffusers():
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2").betas.numpy()
    np.testing.assert_allclose(Schedule.cosine().betas, theirs, rtol=1e-5)


def test_sine_squared_closed_form():
    schedule = Schedule.sine_squared(timesteps=101)
    assert schedule.betas[0] == 1e-4
    np.testing.assert_allclose(schedule.betas[[50, 100]], [(1e-4 + 0.02) / 2, 0.02], rtol=1e-12)
    assert np.all(np.diff(schedule.betas) > 0)
    np.testing.assert_allclose(schedule.betas + schedule.betas[::-1], 1e-4 + 0.02, rtol=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("timesteps", [1, 2, 7, 1000])
def test_named_schedules(name, timesteps):
    schedule = make_schedule(name, timesteps=timesteps)
    assert len(schedule) == timesteps
    arrays = [schedule.betas, schedule.alphas, schedule.alphas_cumprod, schedule.posterior_log_variance_clipped]
    for array in [*arrays, *schedule.posterior_mean_coefficients]:
        assert array.dtype == np.float64
        assert array.shape == (timesteps,)
        assert np.isfinite(array).all()
        assert not array.flags.writeable


def test_scaled_linear_closed_form():
    betas = Schedule.scaled_linear(beta_start=0.00085, beta_end=0.012).betas
    np.testing.assert_allclose(betas[[0, -1]], [0.00085, 0.012], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.sqrt(betas)), (math.sqrt(0.012) - math.sqrt(0.00085)) / 999, rtol=1e-9)
    for name in ("beta_start", "beta_end"):
        with pytest.raises(OptionError, match=rf"{name} is -0\.1, expected a number above 0"):
            Schedule.scaled_linear(**{name: -0.1})


def test_sigmoid_closed_form():
    betas = Schedule.sigmoid(timesteps=121).betas
    share = (betas - 1e-4) / (0.02 - 1e-4)
    np.testing.assert_allclose(np.log(share / (1 - share)), np.linspace(-6, 6, 121), rtol=0, atol=1e-9)


def test_laplace_closed_form():
    schedule = Schedule.laplace(timesteps=100)
    t = np.arange(1, 101) / 100
    root = lambda u: 1 / np.sqrt(1 + ((2 * u + 1e-6) if u <= 0.5 else 1 / (2 * (1 - u) + 1e-6)) ** 0.5)  # noqa: E731
    np.testing.assert_allclose(schedule.alphas_cumprod, [root(u) / root(0.0) for u in t], rtol=1e-9)


@pytest.mark.parametrize("name", ["scaled_linear", "sigmoid", "laplace"])
def test_schedules_of_diffusers(name):
    from diffusers import DDPMScheduler

    try:
        theirs = DDPMScheduler(beta_schedule=name).betas.numpy()
    except NotImplementedError as error:
        pytest.skip(f"this diffusers: {error}")
    np.testing.assert_allclose(make_schedule(name).betas, theirs, rtol=1e-5, atol=1e-7)


def test_rescaling_to_zero_terminal_snr():
    """A shift and a scale of sqrt(abar): differences keep their proportions, the ends are where they belong."""
    schedule = Schedule.linear()
    rescaled = schedule.with_zero_terminal_snr()
    assert rescaled.betas[-1] == 1
    assert rescaled.alphas_cumprod[-1] == 0
    before, after = np.sqrt(schedule.alphas_cumprod), np.sqrt(rescaled.alphas_cumprod)
    assert after[0] == pytest.approx(before[0], rel=1e-12)
    np.testing.assert_allclose(np.diff(after) / np.diff(before), before[0] / (before[0] - before[-1]), rtol=1e-6)
    with pytest.raises(ScheduleError, match="one timestep"):
        Schedule.from_betas([0.1]).with_zero_terminal_snr()


def test_default_terminal_snr_is_near_zero():
    for name in SCHEDULES.keys() - {"laplace"}:  # spends its timesteps in the middle
        assert make_schedule(name).alphas_cumprod[-1] < 1e-3


def test_clipped_log_variance_repeats_the_second_value():
    schedule = Schedule.linear()
    log_variance = schedule.posterior_log_variance_clipped
    assert log_variance[0] == log_variance[1] == np.log(schedule.posterior_variance[1])
    np.testing.assert_array_equal(np.exp(log_variance[1:]), np.exp(np.log(schedule.posterior_variance[1:])))
    assert Schedule.from_betas([0.25]).posterior_log_variance_clipped[0] == np.log(0.25)


def test_zero_terminal_snr_is_a_schedule():
    schedule = Schedule.from_betas([0.1, 0.5, 1.0])
    assert schedule.alphas_cumprod[-1] == 0
    assert schedule.snr[-1] == 0
    assert schedule.posterior_variance[-1] == pytest.approx(1 - 0.45)


def test_betas_are_copied_and_read_only():
    betas = np.array([0.1, 0.2])
    schedule = Schedule.from_betas(betas)
    betas[0] = 0.9
    assert schedule.betas[0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        schedule.betas[0] = 0.5


def test_a_pickled_schedule_is_read_only_too():
    schedule = Schedule.linear(10)
    other = pickle.loads(pickle.dumps(schedule))
    np.testing.assert_array_equal(other.alphas_cumprod, schedule.alphas_cumprod)
    with pytest.raises(ValueError, match="read-only"):
        other.betas[0] = 0.5


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([], "shape"),
        (0.1, "shape"),
        ([[0.1, 0.2]], "shape"),
        ([0.1, math.nan], r"betas\[1\] is nan"),
        ([0.1, math.inf], r"betas\[1\] is inf"),
        ([0.0, 0.1], r"betas\[0\] is 0\.0"),
        ([-0.1], r"betas\[0\] is -0\.1"),
        ([0.1, 1.0, 0.1], r"betas\[1\] is 1\.0"),
        ([0.1, 1.5], r"betas\[1\] is 1\.5"),
        (["a"], "dtype"),
        ([True], "dtype"),
        ([0.1 + 0j], "dtype"),
        ([1e-17], "must fall"),
        ([0.999] * 200, "must fall"),
    ],
)
def test_refused_betas(betas, message):
    with pytest.raises(ScheduleError, match=message):
        Schedule.from_betas(betas)


@pytest.mark.parametrize(
    ("error", "name", "options", "message"),
    [
        (OptionError, "quadratic", {}, "'quadratic'.*'cosine'"),
        (OptionError, "linear", {"s": 0.1}, "'linear' has no option 's'.*'beta_start'"),
        (OptionError, "linear", {"timesteps": 0}, "timesteps is 0"),
        (OptionError, "cosine", {"timesteps": True}, "timesteps is True"),
        (OptionTypeError, "sin2", {"timesteps": 10.0}, r"timesteps is 10\.0"),
        (OptionError, "cosine", {"s": -1}, "s is -1"),
        (OptionError, "cosine", {"s": math.nan}, "s is nan"),
        (OptionError, "cosine", {"max_beta": 1.5}, "max_beta"),
        (ScheduleError, "linear", {"beta_start": 0.0}, r"betas\[0\]"),
    ],
)
def test_refused_options(error, name, options, message):
    with pytest.raises(error, match=message):
        make_schedule(name, **options)
