"""Solvers that must be one another, and the order at which each converges on a problem with a closed form."""

import numpy as np
import pytest
from kit.solvers.chains import SHAPE, make_network, run_rows
from kit.solvers.rows import SHORT

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip
from pysdk.solvers import PREDICTION_TYPES, make_table

NONE, CLAMP = {"clip": Clip.none()}, {"clip": Clip.clamp(0.4)}
SAME = [
    # both are of timesteps
    ("euler", NONE, "ddim", NONE),
    ("dpmpp_1", NONE, "ddim", NONE),
    ("dpmpp_1", CLAMP, "ddim", {**CLAMP, "use_clipped_model_output": True}),
    ("euler_ancestral", {**NONE, "eta": 0.5}, "ddim", {**NONE, "eta": 0.5}),
    ("euler_ancestral", CLAMP, "ddim", {**CLAMP, "eta": 1.0, "use_clipped_model_output": True}),
    ("euler_ancestral", CLAMP, "ddpm", CLAMP),
    ("dpmpp_2m_sde", {**NONE, "eta": 0.0}, "dpmpp_2m", NONE),
    ("dpmpp_2m_sde", {**CLAMP, "eta": 0.0, "solver_type": "heun"}, "dpmpp_2m", {**CLAMP, "solver_type": "heun"}),
    ("dpmpp_3m_sde", {**NONE, "eta": 0.0}, "dpmpp_3m", {**NONE, "solver_type": "heun"}),
]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize(("first", "first_options", "second", "second_options"), SAME)
def test_same(first, first_options, second, second_options, prediction_type):
    schedule = SHORT["cosine"]
    network = make_network(schedule, prediction_type)
    for steps in (100, 10, 1, [99, 50, 3]):
        chosen = {"prediction_type": prediction_type, "steps": steps}
        if steps == 1:
            chosen["spacing"] = "trailing"
        tables = [
            make_table(name, schedule, **chosen, **options)
            for name, options in ((first, first_options), (second, second_options))
        ]
        rng = np.random.default_rng(0)
        start, noise = rng.standard_normal(SHAPE), rng.standard_normal((len(tables[0]), *SHAPE))
        (ours, x), (theirs, y) = (run_rows(table, network, noise, start) for table in tables)
        for (t, asked), (s, expected) in zip(ours, theirs, strict=True):
            assert t == s
            np.testing.assert_allclose(asked, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)
        assert tables[0].init_scale == pytest.approx(1, rel=1e-12)


ORDERS = {
    "ddim": (1, {}),
    "ode_euler": (1, {}),
    "ode_heun": (2, {}),
    "euler": (1, {}),
    "euler_ancestral": (1, {"eta": 0.0}),
    "heun": (2, {}),
    "dpmpp_1": (1, {}),
    "dpmpp_2m": (2, {}),
    "dpmpp_2m heun": (2, {"solver_type": "heun"}),
    "dpmpp_3m": (2, {}),  # the weight of D_2 in use everywhere is half of what third order needs
    "unipc": (3, {}),  # its corrector adds one (UniPC, section 3.3)
    "unipc bh1": (3, {"solver_type": "bh1"}),
    "deis": (2, {}),
}
OF_TIMESTEPS = ("ddim", "ode_euler", "ode_heun")
DEVIATION = 0.5


def flow_error(name, options, steps):
    """Relative error at the lowest level of the flow of N(0, DEVIATION^2), x/S ~ sqrt(DEVIATION^2 + sigma^2)."""
    solver = name.split()[0]
    if solver in OF_TIMESTEPS:
        schedule = Schedule.linear(20_000, 1e-5, 1e-3)
        table = make_table(
            solver, schedule, steps=steps, spacing="linspace", prediction_type="sample", **NONE, **options
        )

        def variance(t):
            abar = schedule.alphas_cumprod[int(t)]
            return abar, abar * DEVIATION**2 + 1 - abar
    else:
        schedule = EdmSchedule(sigma_min=0.02, sigma_max=20.0, sigma_data=None)
        table = make_table(solver, schedule, steps=steps, prediction_type="sample", **NONE, **options)

        def variance(t):
            return 1.0, DEVIATION**2 + t**2

    def network(x, t):
        abar, total = variance(t)
        return np.sqrt(abar) * DEVIATION**2 / total * x

    start = np.ones(SHAPE)
    questions, _ = run_rows(table, network, np.zeros((len(table), *SHAPE)), start)
    (first, _), (last, x) = questions[0], questions[-1]
    expected = start * np.sqrt(variance(last)[1] / variance(first)[1])
    return np.abs(x / expected - 1).max()


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name):
    order, options = ORDERS[name]
    counts = np.array([40, 80, 160, 320])
    errors = [flow_error(name, options, int(count)) for count in counts]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order - 0.15 < slope < order + 0.6
