"""DDPM and DDIM, row by row in float64, against diffusers, and the identities between them."""

from functools import partial

import numpy as np
import pytest
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from kit.solvers.rows import SCHEDULES, SHAPE, STEP_COUNTS, apply, assert_rows_agree, in_float64, random_row

from pysdk.diffusion.schedule import Schedule, make_schedule
from pysdk.diffusion.table import Clip
from pysdk.diffusion.timesteps import make_timesteps
from pysdk.errors import OptionError
from pysdk.solvers import PREDICTION_TYPES, SOLVERS, make_table, read_output
from pysdk.solvers.ddpm import VARIANCES

CLIPS = {
    "none": (Clip.none(), {"clip_sample": False}),
    "clamp": (Clip.clamp(0.8), {"clip_sample": True, "clip_sample_range": 0.8}),
    "dynamic": (
        Clip.dynamic(0.9, 1.5),
        {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
    ),
}
schedules = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
prediction_types = pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
clips = pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)


@schedules
@prediction_types
@clips
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_ddpm_is_diffusers(monkeypatch, schedule, prediction_type, clips, variance):
    clip, their_clip = clips
    theirs = DDPMScheduler(
        trained_betas=schedule.betas, prediction_type=prediction_type, variance_type=variance, **their_clip
    )
    in_float64(theirs, schedule)

    def step(f, t, x, z):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: z)
        return theirs.step(f, t, x).prev_sample

    for steps in STEP_COUNTS:
        theirs.set_timesteps(steps)
        table = make_table("ddpm", schedule, steps=steps, prediction_type=prediction_type, variance=variance, clip=clip)
        np.testing.assert_array_equal(table.column("t"), theirs.timesteps.numpy())
        assert_rows_agree(table, step, schedule, [*range(0, steps, 29), steps - 2, steps - 1])


@schedules
@prediction_types
@clips
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("use_clipped_model_output", [False, True])
def test_ddim_is_diffusers(schedule, prediction_type, clips, eta, use_clipped_model_output):
    clip, their_clip = clips
    theirs = DDIMScheduler(trained_betas=schedule.betas, prediction_type=prediction_type, **their_clip)
    in_float64(theirs, schedule)
    options = {"eta": eta, "use_clipped_model_output": use_clipped_model_output}

    def step(f, t, x, z):
        return theirs.step(f, t, x, variance_noise=z, **options).prev_sample

    for steps in STEP_COUNTS:
        theirs.set_timesteps(steps)
        table = make_table("ddim", schedule, steps=steps, prediction_type=prediction_type, clip=clip, **options)
        np.testing.assert_array_equal(table.column("t"), theirs.timesteps.numpy())
        assert_rows_agree(table, step, schedule, [*range(0, steps, 29), steps - 2, steps - 1])


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps_offset", [0, 1])
def test_ddim_that_ends_on_the_first_alpha_is_diffusers(eta, steps_offset):
    schedule = SCHEDULES["linear"]
    theirs = DDIMScheduler(trained_betas=schedule.betas, set_alpha_to_one=False, steps_offset=steps_offset)
    in_float64(theirs, schedule).set_timesteps(50)
    table = make_table("ddim", schedule, steps=50, steps_offset=steps_offset, eta=eta, set_alpha_to_one=False)

    def step(f, t, x, z):
        return theirs.step(f, t, x, eta=eta, variance_noise=z).prev_sample

    assert_rows_agree(table, step, schedule)


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_of_any_spacing_is_diffusers_but_for_the_last_row(monkeypatch, spacing, variance):
    """Theirs draws noise wherever t > 0, also on a last row; ours ends on the denoised estimate."""
    schedule = SCHEDULES["linear"]
    theirs = DDPMScheduler(trained_betas=schedule.betas, timestep_spacing=spacing, variance_type=variance)
    in_float64(theirs, schedule).set_timesteps(27)  # 27 does not divide 1000
    table = make_table("ddpm", schedule, steps=27, spacing=spacing, variance=variance)

    def step(f, t, x, z):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: z)
        return theirs.step(f, t, x).prev_sample

    assert_rows_agree(table, step, schedule, range(26))
    if spacing == "trailing" and variance == "fixed_large":
        with pytest.raises(AssertionError, match="row 26"):
            assert_rows_agree(table, step, schedule, [26])


@pytest.mark.parametrize("total_steps", [(1000, 27), (1000, 50), (10, 4)])
def test_where_diffusers_next_timestep_of_ddim_is_ours(total_steps):
    """Theirs steps to t - T // steps: the next visited of "leading", of "trailing" if steps divides T, else not."""
    total, steps = total_steps
    for spacing in ("leading", "trailing", "linspace"):
        timesteps = make_timesteps(total, steps, spacing=spacing)
        agree = np.array_equal(timesteps[1:], timesteps[:-1] - total // steps)
        assert agree == (spacing == "leading" or (spacing == "trailing" and total % steps == 0))


def test_stride_is_what_diffusers_steps_to():
    """Every spacing, and the last row where a stride leads to timestep 0; the rows are diffusers' own."""
    schedule = SCHEDULES["linear"]
    for spacing in ("leading", "trailing", "linspace"):
        theirs = DDIMScheduler(trained_betas=schedule.betas, timestep_spacing=spacing)
        in_float64(theirs, schedule).set_timesteps(27)
        table = make_table("ddim", schedule, steps=27, spacing=spacing, prev_timestep="stride", eta=0.5)
        assert_rows_agree(
            table,
            lambda f, t, x, z, theirs=theirs: theirs.step(f, t, x, eta=0.5, variance_noise=z).prev_sample,
            schedule,
        )


def test_final_noise_is_that_of_the_last_timestep():
    schedule = SCHEDULES["linear"]
    table = make_table("ddpm", schedule, steps=20, spacing="trailing", variance="large", final_noise=True)
    assert table.column("s")[-1] == pytest.approx(np.sqrt(1 - schedule.alphas_cumprod[49]))
    at_zero = make_table("ddpm", schedule, steps=20, variance="large", final_noise=True)
    np.testing.assert_array_equal(at_zero.rows, make_table("ddpm", schedule, steps=20, variance="large").rows)
    learned = make_table("ddpm", schedule, steps=20, spacing="trailing", variance="learned", final_noise=True)
    assert learned.column("s")[-1] == 1
    assert learned.column("log_beta_tilde")[-1] == pytest.approx(np.log(1e-20))


def assert_same_action(first, second, schedule, rtol=1e-12):
    """Equal on random tensors, relative to the largest term of the sum."""
    np.testing.assert_array_equal(first.timesteps, second.timesteps)
    for row in range(len(first)):
        x, f, z = random_row(schedule, int(first.timesteps[row]))
        raw = first.column("p")[row] * x + first.column("q")[row] * f
        size = max(np.abs(x).max(), np.abs(raw).max())
        np.testing.assert_allclose(apply(first, row, x, f, z), apply(second, row, x, f, z), rtol=0, atol=rtol * size)


@pytest.mark.parametrize("name", ["linear", "cosine", "sin2"])
@pytest.mark.parametrize("steps", [None, 50, [999], [999, 500, 1], "10,10,5"])
def test_ddim_with_eta_1_is_ddpm(name, steps):
    """Unclipped, or with eps from the clipped estimate (DDIM, section 4.1)."""
    schedule = make_schedule(name)
    make = partial(make_table, schedule=schedule, steps=steps)
    assert_same_action(make("ddpm", clip=Clip.none()), make("ddim", eta=1.0, clip=Clip.none()), schedule)
    assert_same_action(make("ddpm"), make("ddim", eta=1.0, use_clipped_model_output=True), schedule)


def test_unclipped_both_eps_of_ddim_are_one():
    schedule = SCHEDULES["linear"]
    make = partial(make_table, "ddim", schedule, steps=50, eta=0.5, clip=Clip.none())
    assert_same_action(make(), make(use_clipped_model_output=True), schedule)


@schedules
def test_posterior_form_is_algorithm_2(schedule):
    """Unclipped, x' = (x - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma_t z (DDPM, Algorithm 2)."""
    table = make_table("ddpm", schedule, clip=Clip.none(), variance="large")
    for row, t in enumerate(range(999, -1, -1)):
        x, f, z = random_row(schedule, t)
        beta, alpha, abar = schedule.betas[t], schedule.alphas[t], schedule.alphas_cumprod[t]
        expected = (x - beta / np.sqrt(1 - abar) * f) / np.sqrt(alpha) + (t > 0) * np.sqrt(beta) * z
        np.testing.assert_allclose(apply(table, row, x, f, z), expected, rtol=0, atol=1e-12 * (1 + 1 / np.sqrt(abar)))


@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_ddpm_over_a_list_of_all_timesteps_is_the_full_chain(variance):
    schedule = SCHEDULES["linear"]
    full = make_table("ddpm", schedule, variance=variance)
    listed = make_table("ddpm", schedule, steps=list(range(1000))[::-1], variance=variance)
    np.testing.assert_array_equal(full.rows, listed.rows)
    expected = {"small": schedule.posterior_variance, "large": schedule.betas}.get(variance)
    if expected is not None:
        np.testing.assert_allclose(full.column("s")[:-1] ** 2, expected[:0:-1], rtol=1e-11)
    else:
        np.testing.assert_allclose(full.column("log_beta"), np.log(schedule.betas)[::-1], rtol=1e-11)
        np.testing.assert_allclose(
            full.column("log_beta_tilde"), schedule.posterior_log_variance_clipped[::-1], rtol=1e-11
        )


@pytest.mark.parametrize("steps", [None, 50, 1, [500], [999, 3]])
@pytest.mark.parametrize("variance", VARIANCES)
def test_last_row_of_ddpm_is_the_denoised_estimate(steps, variance):
    spacing = "trailing" if steps == 1 else None
    table = make_table("ddpm", SCHEDULES["cosine"], steps=steps, spacing=spacing, variance=variance)
    assert [table.column(name)[-1] for name in "abhs"] == [0, 1, 0, 0]
    assert np.all(table.column("s")[:-1] > 0)
    assert table.learned_variance == (VARIANCES[variance] == "learned")


@pytest.mark.parametrize("eta", [0, 0.5, 1])
def test_last_row_of_ddim_is_the_denoised_estimate(eta):
    table = make_table("ddim", SCHEDULES["cosine"], steps=50, eta=eta)
    assert [table.column(name)[-1] for name in "abhs"] == [0, 1, 0, 0]
    assert np.all((table.column("s")[:-1] > 0) == (eta > 0))


@schedules
@prediction_types
def test_exact_output_is_read_as_the_data(schedule, prediction_type):
    rng = np.random.default_rng(0)
    data, noise = rng.standard_normal((2, 1000))
    signal, deviation = np.sqrt(schedule.alphas_cumprod), np.sqrt(1 - schedule.alphas_cumprod)
    x = signal * data + deviation * noise
    output = {"epsilon": noise, "sample": data, "v_prediction": signal * noise - deviation * data}[prediction_type]
    p, q = read_output(prediction_type, schedule.alphas_cumprod)
    np.testing.assert_allclose(p * x + q * output, data, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
@pytest.mark.parametrize(
    "options", [{"variance": "small"}, {"variance": "large"}, {"variance": "learned"}, {"eta": 1.0}]
)
def test_zero_terminal_snr(prediction_type, options):
    schedule = Schedule.from_betas([*np.linspace(1e-3, 0.2, 99), 1.0])
    name = "ddim" if "eta" in options else "ddpm"
    table = make_table(name, schedule, prediction_type=prediction_type, **options)
    assert np.isfinite(table.rows).all()
    x, z = np.ones((2, *SHAPE))
    f = np.full((2, 3 * (1 + table.learned_variance), 4, 4), 0.25)
    posterior_mean = np.sqrt(schedule.alphas_cumprod[-2]) * (0.25 if prediction_type == "sample" else -0.25)
    np.testing.assert_allclose(apply(table, 0, x, f, 0 * z), posterior_mean, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(SOLVERS) - {"ddpm", "ddim", "reverse_ddim"}))
def test_zero_terminal_snr_is_an_infinite_step(name):
    """Solvers of the SDE and in sigma refuse it with a way out, and take the timestep below."""
    schedule = Schedule.from_betas([*np.linspace(1e-3, 0.2, 99), 1.0])
    for prediction_type in ("sample", "v_prediction"):
        with pytest.raises(OptionError, match=r"at timestep 99.*zero terminal SNR"):
            make_table(name, schedule, prediction_type=prediction_type)
        assert np.isfinite(make_table(name, schedule, steps=[98, 50, 0], prediction_type=prediction_type).rows).all()


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_zero_terminal_snr_cannot_be_read_from_the_noise(name):
    schedule = Schedule.from_betas([*np.linspace(1e-3, 0.2, 99), 1.0])
    with pytest.raises(OptionError, match=r"alphas_cumprod is 0.*'v_prediction'"):
        make_table(name, schedule)
    assert np.isfinite(make_table(name, schedule, steps=[98, 50, 0]).rows).all()  # it need not be visited
