"""The registry: new solvers, options that every solver has, and those that are refused."""

import numpy as np
import pytest
from kit.solvers.rows import SCHEDULES

from pysdk.diffusion.table import Clip
from pysdk.errors import OptionError, OptionTypeError
from pysdk.solvers import DEFAULT_CLIP, SOLVERS, make_table, solver, solver_options


def test_default_clip_is_for_data_in_minus_1_to_1():
    for name in set(SOLVERS) - {"reverse_ddim"}:  # which clips nothing
        assert solver_options(name)["clip"] == Clip.clamp(1.0)


def test_a_new_solver_is_one_function(monkeypatch):
    monkeypatch.setattr("pysdk.solvers.SOLVERS", dict(SOLVERS))

    @solver
    def mine(schedule, timesteps, *, prediction_type="epsilon", strength=1.0):
        return SOLVERS["ddim"](schedule, timesteps, prediction_type=prediction_type, eta=strength)

    table = make_table("mine", SCHEDULES["linear"], steps=10, strength=0.5)
    np.testing.assert_array_equal(table.rows, make_table("ddim", SCHEDULES["linear"], steps=10, eta=0.5).rows)
    with pytest.raises(OptionError, match=r"'mine' has no option 'eta'; it has \['strength'\]"):
        make_table("mine", SCHEDULES["linear"], eta=0.5)


def test_a_new_solver_in_sigma_is_one_function(monkeypatch):
    monkeypatch.setattr("pysdk.solvers.SOLVERS", dict(SOLVERS))

    @solver
    def mine(levels, *, strength=1.0, clip=DEFAULT_CLIP):
        a = levels.sigmas[1:] / levels.sigmas[:-1]
        return levels.table(levels.sigmas, a=a, b=strength * (1 - a), clip=clip)

    for options in ({"steps": 10}, {"steps": 7, "sigmas": "karras", "rho": 5.0}, {"sigmas": [50.0, 3.0, 0.1]}):
        table = make_table("mine", SCHEDULES["linear"], **options)
        np.testing.assert_array_equal(table.rows, make_table("euler", SCHEDULES["linear"], **options).rows)
    assert set(solver_options("mine")) == {"strength", "clip", "sigmas", "sigma_min", "sigma_max", "rho"}


@pytest.mark.parametrize(
    ("error", "name", "options", "message"),
    [
        (OptionError, "eulr", {}, r"'eulr', expected one of \['annealed_langevin', 'ddim', 'ddpm', "),
        (OptionError, "ddpm", {"eta": 0.5}, "'ddpm' has no option 'eta'.*'variance'"),
        (OptionError, "ddim", {"variance": "small"}, "'ddim' has no option 'variance'.*'eta'"),
        (OptionError, "ddpm", {"variance": "fixed_small_log"}, "'fixed_small_log', expected one of"),
        (OptionError, "ddpm", {"prediction_type": "score"}, "'score', expected one of"),
        (OptionError, "ddim", {"eta": -0.1}, r"eta is -0\.1"),
        (OptionError, "ddim", {"eta": 1.5}, r"eta is 1\.5"),
        (OptionError, "ddim", {"eta": float("nan")}, "eta is nan"),
        (OptionTypeError, "ddim", {"eta": "1"}, "eta is '1'"),
        (OptionTypeError, "ddim", {"eta": True}, "eta is True"),
        (OptionTypeError, "ddim", {"use_clipped_model_output": 1}, "use_clipped_model_output is 1"),
        (OptionTypeError, "ddim", {"set_alpha_to_one": None}, "set_alpha_to_one is None"),
        (OptionTypeError, "ddpm", {"final_noise": 1}, "final_noise is 1"),
        (
            OptionError,
            "ddim",
            {"prev_timestep": "last"},
            r"prev_timestep is 'last', expected one of \['next', 'stride'\]",
        ),
        (OptionTypeError, "ddpm", {"clip": True}, "clip is True"),
        (OptionTypeError, "ddim", {"clip": 1.0}, r"clip is 1\.0"),
        (OptionError, "reverse_ddim", {"eta": 0.5}, "'reverse_ddim' has no option 'eta'"),
        (OptionError, "euler_maruyama", {"eta": 1.0}, "'euler_maruyama' has no option 'eta'"),
        (OptionError, "ode_heun", {"sigmas": "karras"}, "'ode_heun' has no option 'sigmas'"),
        (OptionError, "euler", {"variance": "small"}, "'euler' has no option 'variance'.*'rho'"),
        (OptionError, "euler", {"s_churn": -1}, "s_churn is -1, expected a number from 0"),
        (OptionError, "heun", {"s_churn": float("nan")}, "s_churn is nan"),
        (OptionTypeError, "heun", {"s_churn": "40"}, "s_churn is '40', expected a number"),
        (OptionError, "heun", {"s_noise": 1.003}, "s_churn is 0, so s_tmin, s_tmax and s_noise would not be used"),
        (OptionError, "heun", {"s_churn": 40, "s_tmin": 500}, "no level lies between s_tmin 500.0 and s_tmax inf"),
        (OptionError, "euler", {"s_churn": 40}, r"would visit sigma 1\d\d\.\d+, but the network knows .* s_tmax"),
        (OptionError, "euler_ancestral", {"eta": 1.5}, r"eta is 1\.5, expected a number from 0"),
        (OptionError, "dpmpp_2m_sde", {"eta": 0.0, "s_noise": 1.1}, r"s_noise is 1\.1, but with eta 0"),
        (OptionError, "dpmpp_2m", {"solver_type": "bh1"}, r"solver_type is 'bh1', expected one of \['midpoint'"),
        (OptionError, "unipc", {"solver_type": "heun"}, r"solver_type is 'heun', expected one of \['bh2'"),
        (OptionTypeError, "deis", {"clip": 1.0}, r"clip is 1\.0"),
        (OptionError, "annealed_langevin", {"step_size": 0.0}, r"step_size is 0\.0, expected a number above 0"),
        (OptionTypeError, "annealed_langevin", {"corrector_steps": 1.5}, r"corrector_steps is 1\.5"),
        (OptionError, "predictor_corrector", {"snr": 1.0}, r"snr is 1\.0"),
        (OptionError, "predictor_corrector", {"corrector_steps": -1}, "corrector_steps is -1"),
        (OptionError, "predictor_corrector", {"prediction_type": "edm"}, "prediction_type is 'edm', expected one of"),
        (OptionError, "ddpm", {"steps": 1001}, "steps is 1001, expected 1 to 1000"),
        (OptionError, "ddpm", {"steps": 0}, "steps is 0"),
        (OptionError, "ddim", {"steps": 10, "spacing": "uniform"}, "'uniform', expected one of"),
    ],
)
def test_refused(error, name, options, message):
    with pytest.raises(error, match=message):
        make_table(name, SCHEDULES["linear"], **options)
