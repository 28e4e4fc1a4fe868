"""Reverse DDIM against diffusers' scheduler, the paper's formula and the way back."""

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler
from kit.solvers.rows import SCHEDULES, STEP_COUNTS, apply, random_row

from pysdk.diffusion.schedule import Schedule
from pysdk.diffusion.table import Clip
from pysdk.errors import OptionError
from pysdk.solvers import PREDICTION_TYPES, make_table

schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def inverse_scheduler(schedule, steps, **options):
    """diffusers' scheduler, in float64."""
    theirs = DDIMInverseScheduler(trained_betas=schedule.betas, **options)
    theirs.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    theirs.initial_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(steps)
    return theirs


@schedules
@pytest.mark.parametrize("steps", STEP_COUNTS)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("clip", [Clip.none(), Clip.clamp(1)], ids=["plain", "clipped"])
def test_next_is_diffusers(schedule, steps, spacing, prediction_type, clip):
    theirs = inverse_scheduler(
        schedule,
        steps,
        prediction_type=prediction_type,
        clip_sample=clip != Clip.none(),
        timestep_spacing=spacing,
    )
    options = {"prediction_type": prediction_type, "clip": clip}
    table = make_table("reverse_ddim", schedule, steps=steps, spacing=spacing, network_timestep="next", **options)
    np.testing.assert_array_equal(table.timesteps, theirs.timesteps.numpy())
    first = 1 if prediction_type == "sample" else 0  # diffusers divides by zero there
    for row in {*range(first, steps, 29), steps - 1}:
        t = int(table.timesteps[row])
        x, f, _ = random_row(schedule, t)
        if row == 0:  # data, which no clip changes
            x = x.clip(-1, 1)
        expected = theirs.step(torch.tensor(f), t, torch.tensor(x)).prev_sample.numpy()
        np.testing.assert_allclose(apply(table, row, x, f, 0 * x), expected, rtol=1e-12, atol=1e-12)


def test_next_reads_clean_data_of_a_sample_network_at_the_lowest_timestep():
    schedule = SCHEDULES["linear"]
    table = make_table("reverse_ddim", schedule, steps=10, prediction_type="sample", network_timestep="next")
    abar = schedule.alphas_cumprod[0]
    x, f, _ = random_row(schedule, 0)
    noise = (x - np.sqrt(abar) * f) / np.sqrt(1 - abar)
    expected = np.sqrt(abar) * x + np.sqrt(1 - abar) * noise
    np.testing.assert_allclose(apply(table, 0, x, f, 0 * x), expected, rtol=1e-10, atol=1e-10)


def test_the_golden_sum_of_diffusers():
    """Their own test of a whole loop, with v-prediction, their dummy sample and their dummy network x t/(t + 1)."""
    table = make_table(
        "reverse_ddim",
        Schedule.linear(),
        steps=10,
        spacing="leading",
        prediction_type="v_prediction",
        network_timestep="next",
        clip=Clip.clamp(1),
    )
    x = (np.arange(4 * 3 * 8 * 8) / (4 * 3 * 8 * 8)).reshape(3, 8, 8, 4).transpose(3, 0, 1, 2)
    for row, t in enumerate(table.timesteps):
        x = apply(table, row, x, x * t / (t + 1), 0.0)
    assert np.abs(x).sum() == pytest.approx(1394.2185, abs=1e-3)


@schedules
@pytest.mark.parametrize("steps", STEP_COUNTS)
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_current_is_equation_14(schedule, steps, prediction_type):
    """d(x/S) = d(N/S) eps, the noise read at the timestep told; from clean data up."""
    table = make_table("reverse_ddim", schedule, steps=steps, prediction_type=prediction_type)
    visited = np.arange(steps) * (1000 // steps)
    np.testing.assert_array_equal(table.timesteps, [0, *visited[:-1]])
    for row in {*range(0, steps, 29), steps - 1}:
        told, target = int(table.timesteps[row]), schedule.alphas_cumprod[visited[row]]
        start = 1.0 if row == 0 else schedule.alphas_cumprod[visited[row - 1]]
        x, f, _ = random_row(schedule, told)
        signal, noise = np.sqrt(schedule.alphas_cumprod[told]), np.sqrt(1 - schedule.alphas_cumprod[told])
        eps = {"epsilon": f, "sample": (x - signal * f) / noise, "v_prediction": signal * f + noise * x}
        slope = np.sqrt(1 / target - 1) - np.sqrt(1 / start - 1)
        expected = np.sqrt(target) * (x / np.sqrt(start) + slope * eps[prediction_type])
        np.testing.assert_allclose(apply(table, row, x, f, 0 * x), expected, rtol=1e-10, atol=1e-10)


def test_ddim_decodes_what_it_encodes():
    """Data N(0, 0.25): eps = N x / (abar/4 + N^2). The way back returns to the image, the closer the more steps."""
    schedule = SCHEDULES["linear"]

    def run(table, x):
        for row, t in enumerate(table.timesteps.astype(int)):
            abar = schedule.alphas_cumprod[t]
            x = apply(table, row, x, np.sqrt(1 - abar) * x / (abar / 4 + 1 - abar), 0.0)
        return x

    image = np.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    errors = []
    for steps in (20, 100, 500):
        latent = run(make_table("reverse_ddim", schedule, steps=steps, spacing="trailing"), image)
        # x_0 / 0.5 = x_T / sqrt(abar/4 + N^2) along the flow
        np.testing.assert_allclose(latent, 2 * image, rtol=15 / steps)
        decoded = run(make_table("ddim", schedule, steps=steps, spacing="trailing", clip=Clip.none()), latent)
        errors.append(np.abs(decoded - image).max())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


def test_last_timestep_must_hold_something_of_the_image():
    schedule = Schedule.from_betas([*np.linspace(1e-3, 0.2, 99), 1.0])
    with pytest.raises(OptionError, match=r"zero terminal SNR.*below 99"):
        make_table("reverse_ddim", schedule, prediction_type="v_prediction")
    make_table("reverse_ddim", schedule, steps=[98, 50, 0], prediction_type="v_prediction")
    with pytest.raises(OptionError, match="network_timestep is 'last', expected one of"):
        make_table("reverse_ddim", schedule, steps=[98, 50, 0], network_timestep="last")
