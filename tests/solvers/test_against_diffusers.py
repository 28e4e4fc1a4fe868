"""Solvers in sigma against diffusers' schedulers: whole chains in float64, one row a solver."""

import numpy as np
import pytest
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from kit.solvers.chains import SHAPE, distance, make_network, run_rows, run_scheduler
from kit.solvers.rows import SHORT

from pysdk.diffusion.edm import EdmSchedule
from pysdk.diffusion.noise_levels import make_levels
from pysdk.diffusion.table import Clip
from pysdk.solvers import PREDICTION_TYPES, make_table

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),  # theirs
    pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning"),  # theirs, DEIS at sigma 0
]

TOLERANCE = 1e-12
DPM = {"final_sigmas_type": "zero", "lower_order_final": False}
SOLVERS = {
    # ours: (options, scheduler, its configuration, whether its x is x/S)
    "euler": ({}, EulerDiscreteScheduler, {}, True),
    "euler_ancestral": ({}, EulerAncestralDiscreteScheduler, {}, True),
    "heun": ({}, HeunDiscreteScheduler, {}, True),
    "dpmpp_1": ({}, DPMSolverMultistepScheduler, {"solver_order": 1, **DPM}, False),
    "dpmpp_2m": ({}, DPMSolverMultistepScheduler, {"solver_order": 2, **DPM}, False),
    "dpmpp_2m heun": (
        {"solver_type": "heun"},
        DPMSolverMultistepScheduler,
        {"solver_order": 2, "solver_type": "heun", **DPM},
        False,
    ),
    "dpmpp_3m": ({}, DPMSolverMultistepScheduler, {"solver_order": 3, **DPM}, False),
    "dpmpp_2m_sde": (
        {},
        DPMSolverMultistepScheduler,
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", **DPM},
        False,
    ),
    "dpmpp_2m_sde heun": (
        {"solver_type": "heun"},
        DPMSolverMultistepScheduler,
        {"solver_order": 2, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun", **DPM},
        False,
    ),
    "unipc": ({}, UniPCMultistepScheduler, {"solver_order": 2, "final_sigmas_type": "zero"}, False),
    "unipc bh1": (
        {"solver_type": "bh1"},
        UniPCMultistepScheduler,
        {"solver_order": 2, "solver_type": "bh1", "final_sigmas_type": "zero"},
        False,
    ),
    "deis": ({}, DEISMultistepScheduler, {"solver_order": 2}, False),
}
EDM_SOLVERS = {
    "euler": ({}, EDMEulerScheduler, {}),
    "dpmpp_2m": ({}, EDMDPMSolverMultistepScheduler, {"solver_order": 2, "final_sigmas_type": "zero"}),
    "dpmpp_3m": ({}, EDMDPMSolverMultistepScheduler, {"solver_order": 3, **DPM}),
    "dpmpp_2m_sde": ({}, EDMDPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", **DPM}),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [10, 50, 100])
def test_network_of_timesteps(monkeypatch, name, prediction_type, steps):
    schedule = SHORT["linear"]
    options, make_scheduler, config, in_sigma = SOLVERS[name]
    if make_scheduler is EulerAncestralDiscreteScheduler and prediction_type == "sample":
        pytest.skip("theirs has no prediction_type 'sample'")
    chosen = {"steps": steps, "prediction_type": prediction_type}
    table = make_table(name.split()[0], schedule, clip=Clip.none(), **chosen, **options)
    sigmas = make_levels(schedule, **chosen).sigmas
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal(SHAPE), rng.standard_normal((len(table), *SHAPE))
    network = make_network(schedule, prediction_type)
    scheduler = make_scheduler(trained_betas=schedule.betas, prediction_type=prediction_type, **config)
    theirs = run_scheduler(
        monkeypatch,
        scheduler,
        network,
        noise,
        start * (np.hypot(1, sigmas[0]) if in_sigma else 1),
        sigmas,
        table.timesteps,
        in_sigma,
    )
    ours = run_rows(table, network, noise, start)
    if name == "deis" and steps >= 15:  # theirs extrapolates to sigma 0 in the last row, which is NaN
        ours, theirs = (ours[0], 0.0), (theirs[0], 0.0)
    error, late = distance(ours, theirs)
    assert error < TOLERANCE
    assert late == 0


@pytest.mark.parametrize("name", EDM_SOLVERS)
@pytest.mark.parametrize("steps", [10, 50])
def test_network_of_sigma(monkeypatch, name, steps):
    schedule = EdmSchedule()
    options, make_scheduler, config = EDM_SOLVERS[name]
    table = make_table(name, schedule, steps=steps, prediction_type="edm", clip=Clip.none(), **options)
    sigmas = make_levels(schedule, steps, prediction_type="edm").sigmas
    rng = np.random.default_rng(0)
    start, noise = rng.standard_normal(SHAPE) * table.init_scale, rng.standard_normal((len(table), *SHAPE))
    network = make_network(schedule, "edm")
    scheduler = make_scheduler(**config)
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(scheduler.sigmas.numpy(), sigmas, rtol=3e-6)  # Karras', in their float32
    np.testing.assert_allclose(scheduler.timesteps.numpy(), table.timesteps, rtol=1e-6, atol=3e-6)
    theirs = run_scheduler(monkeypatch, scheduler, network, noise, start, sigmas, table.timesteps, True)
    error, late = distance(run_rows(table, network, noise, start), theirs)
    assert error < TOLERANCE
    assert late == 0
