"""Noise levels: the rules against k-diffusion's formulas and diffusers, timesteps between timesteps, refusals."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from kit.solvers.rows import SCHEDULES

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import make_levels
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.sigmas import SIGMAS, exponential, karras, polyexponential
from pysdk.errors import OptionError, OptionTypeError, ScheduleError
from pysdk.solvers import SOLVERS, make_table

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers'


def test_rules():
    ramp = np.linspace(0, 1, 30)
    expected = (80 ** (1 / 5) + ramp * (0.01 ** (1 / 5) - 80 ** (1 / 5))) ** 5
    np.testing.assert_allclose(karras(30, 0.01, 80.0, 5.0), expected, rtol=1e-13)
    expected = np.exp(np.log(80) + ramp * (np.log(0.01) - np.log(80)))
    np.testing.assert_allclose(exponential(30, 0.01, 80.0), expected, rtol=1e-13)
    expected = np.exp(ramp[::-1] ** 3 * (np.log(80) - np.log(0.01)) + np.log(0.01))
    np.testing.assert_allclose(polyexponential(30, 0.01, 80.0, 3.0), expected, rtol=1e-12)
    np.testing.assert_allclose(polyexponential(30, 0.01, 80.0), exponential(30, 0.01, 80.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("rule", "theirs"), [("karras", "use_karras_sigmas"), ("exponential", "use_exponential_sigmas")]
)
def test_rules_over_timesteps_are_diffusers(rule, theirs):
    """Levels and the timesteps between timesteps; theirs are float32."""
    schedule = SCHEDULES["linear"]
    scheduler = EulerDiscreteScheduler(trained_betas=schedule.betas, **{theirs: True})
    scheduler.set_timesteps(20)
    levels = make_levels(schedule, 20, sigmas=rule)
    np.testing.assert_allclose(levels.sigmas, scheduler.sigmas.numpy(), rtol=2e-4)
    told = levels.reading(levels.sigmas[:-1])["t"]
    np.testing.assert_allclose(told, scheduler.timesteps.numpy(), rtol=2e-4, atol=2e-2)
    assert told[0] == 999
    assert told[-1] == 0


@pytest.mark.parametrize("rule", SIGMAS)
def test_ends_are_exact(rule):
    for schedule, low, high in ((EdmSchedule(), 0.002, 80.0), (SCHEDULES["cosine"], None, None)):
        levels = make_levels(schedule, 10, sigmas=rule, prediction_type="sample")
        assert len(levels) == 10
        assert np.all(np.diff(levels.sigmas) < 0)
        assert levels.sigmas[-1] == 0
        if low is None:
            assert levels.reading(levels.sigmas[:-1])["t"][[0, -1]].tolist() == [999, 0]
        else:
            assert levels.sigmas[[0, -2]].tolist() == [high, low]
    assert make_levels(EdmSchedule(), 1, sigmas=rule, prediction_type="sample").sigmas.tolist() == [80.0, 0.0]


def test_levels_of_timesteps_are_those_of_the_schedule():
    schedule = SCHEDULES["cosine"]
    levels = make_levels(schedule, 50, spacing="trailing")
    t = levels.reading(levels.sigmas[:-1])["t"]
    np.testing.assert_array_equal(t, np.arange(50)[::-1] * 20 + 19)
    np.testing.assert_allclose(
        levels.signal(levels.sigmas[:-1]) ** 2, schedule.alphas_cumprod[t.astype(int)], rtol=1e-12
    )


def test_chains_start_at_their_first_level():
    for name in SOLVERS:
        if name != "reverse_ddim":  # from images
            assert make_table(name, SCHEDULES["linear"], steps=10).init_scale == pytest.approx(1, rel=1e-12)
    edm = {"schedule": EdmSchedule(), "prediction_type": "edm", "steps": 10}
    assert make_table("euler", **edm).init_scale == 80
    raised = make_table("heun", **edm, s_churn=2.0)
    assert raised.init_scale == pytest.approx(80 * 1.2)
    assert raised.timesteps[0] == pytest.approx(np.log(80 * 1.2) / 4)
    louder = make_table("heun", **edm, s_churn=2.0, s_noise=2.0)
    assert louder.init_scale == pytest.approx(80 * np.sqrt(1 + 4 * (1.2**2 - 1)))


def test_levels_may_be_an_array():
    listed = make_levels(SCHEDULES["linear"], sigmas=[10.0, 1.0, 0.1])
    as_array = make_levels(SCHEDULES["linear"], sigmas=np.array([10.0, 1.0, 0.1], np.float32))
    np.testing.assert_allclose(as_array.sigmas, listed.sigmas, rtol=1e-7)
    make_table("euler", SCHEDULES["linear"], sigmas=np.geomspace(100, 0.1, 5))
    np.testing.assert_array_equal(
        make_levels(SCHEDULES["linear"], sigmas=torch.tensor([10.0, 1.0, 0.1])).sigmas, as_array.sigmas
    )


ZERO_SNR = Schedule.from_betas([*np.linspace(1e-3, 0.2, 99), 1.0])


@pytest.mark.parametrize(
    ("schedule", "options", "error", "message"),
    [
        (SCHEDULES["linear"], {"sigmas": "cubic"}, OptionError, r"sigmas is 'cubic', expected one of \['timesteps'"),
        (
            SCHEDULES["linear"],
            {"sigma_max": 50.0},
            OptionError,
            "sigmas is 'timesteps', so sigma_max would not be used",
        ),
        (SCHEDULES["linear"], {"sigmas": "karras", "steps_offset": 1}, OptionError, "steps_offset would not be used"),
        (
            SCHEDULES["linear"],
            {"sigmas": "exponential", "rho": 3.0},
            OptionError,
            "rho is 3.0, but sigmas 'exponential'",
        ),
        (SCHEDULES["linear"], {"sigmas": "karras", "steps": "ddim50"}, OptionTypeError, "steps is 'ddim50', expected"),
        (SCHEDULES["linear"], {"sigmas": "karras", "steps": 0}, OptionError, "steps is 0"),
        (SCHEDULES["linear"], {"sigmas": "karras", "sigma_min": 5, "sigma_max": 5}, OptionError, "sigma_min is 5"),
        (SCHEDULES["linear"], {"sigmas": "karras", "sigma_min": "a"}, OptionTypeError, "sigma_min is 'a'"),
        (SCHEDULES["linear"], {"sigmas": [3.0, 1.0], "steps": 2}, OptionError, "steps would not be used"),
        (SCHEDULES["linear"], {"sigmas": [1.0, 3.0]}, OptionError, "expected strictly falling levels"),
        (SCHEDULES["linear"], {"sigmas": [1.0, 0.0]}, OptionError, "expected finite levels above 0"),
        (SCHEDULES["linear"], {"sigmas": []}, OptionError, "expected finite levels above 0"),
        (SCHEDULES["linear"], {"sigmas": 3}, OptionError, "sigmas is 3, expected finite levels"),
        (SCHEDULES["linear"], {"sigmas": ["a"]}, OptionTypeError, "expected a rule's name or a list of numbers"),
        (ZERO_SNR, {"sigmas": "karras"}, OptionError, "zero terminal SNR.; give sigma_max for karras"),
        (EdmSchedule(), {"sigmas": "timesteps"}, OptionError, "sigmas is 'timesteps', but the network has none"),
        (EdmSchedule(), {"spacing": "trailing"}, OptionError, "sigmas is 'karras', so spacing would not be used"),
        (EdmSchedule(), {"steps": [3, 1]}, OptionTypeError, r"steps is \[3, 1\]"),
        (EdmSchedule(), {"prediction_type": "v_prediction"}, OptionError, r"'v_prediction', expected one of \['edm'"),
        (EdmSchedule(sigma_data=None), {"prediction_type": "edm"}, OptionError, "needs the schedule's sigma_data"),
    ],
)
def test_refused(schedule, options, error, message):
    chosen = {"prediction_type": "sample", **options}
    with pytest.raises(error, match=message):
        make_levels(schedule, **chosen)


def test_levels_outside_what_the_network_knows():
    for options in ({"sigmas": [500.0, 1.0]}, {"sigmas": "karras", "steps": 5, "sigma_min": 1e-4}):
        levels = make_levels(SCHEDULES["linear"], **options)
        with pytest.raises(OptionError, match=r"would visit sigma .*, but the network knows 0\.0100005 to 157\.4"):
            levels.reading(levels.sigmas[:-1])
    assert make_levels(ZERO_SNR, 5, sigmas="karras", sigma_max=9.0).sigmas[0] == 9.0


@pytest.mark.parametrize(
    "options",
    [{"sigma_min": 0.0}, {"sigma_max": float("inf")}, {"rho": -1}, {"sigma_data": "0.5"}, {"sigma_max": 1e-3}],
)
def test_edm_schedules_that_are_none(options):
    with pytest.raises(ScheduleError, match=f"{next(iter(options))}|sigma_min"):
        EdmSchedule(**options)


def test_edm_schedules_of_numpy_scalars():
    assert EdmSchedule(np.float32(0.5), np.int64(80), sigma_data=np.float64(0.5)) == EdmSchedule(0.5, 80.0)
