"""scheduler_config.json: every field against diffusers' own scheduler, or refused by name."""

import inspect
import json

import msgspec
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm

from pysdk.diffusion.schedule import Schedule, make_schedule
from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.diffusers.scheduler import DDIM, DDPM, STEPS, SchedulerConfig, read_scheduler
from pysdk.plan.manifest import Manifest, ModelInfo
from pysdk.request.solver_table import resolve_table

SHAPE = (2, 3, 4, 4)
STEP_COUNTS = (1000, 50, 27)
"""27 does not divide 1000."""

NAMES = {"squaredcos_cap_v2": "cosine"}
spacings = pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])


def read(kind, **config):
    """As a scheduler of that kind would save it."""
    saved = json.loads((DDPMScheduler if kind == DDPM else DDIMScheduler)(**config).to_json_string())
    return read_scheduler(saved, "scheduler_config.json", kind=kind, steps=STEPS[kind])


def table(scheduler, steps, **options):
    """The table of a plan with this scheduler."""
    channels = 6 if scheduler.variance_type == "learned_range" else 3
    model = ModelInfo(
        name="tiny",
        shape=SHAPE[1:],
        out_channels=channels,
        prediction_type=scheduler.prediction_type,
        variance_type=scheduler.variance_type,
    )
    manifest = Manifest(pysdk_version="0", model=model, schedule=scheduler.schedule, defaults=scheduler.defaults)
    return resolve_table(manifest, Schedule.from_betas(scheduler.schedule.betas), None, steps, options)


def apply(table, row, x, f, z):
    """One row in float64."""
    c = {name: table.column(name)[row] for name in ("p", "q", "a", "b", "h", "s", "log_beta", "log_beta_tilde")}
    scale = c["s"]
    if table.learned_variance:
        f, v = np.split(f, 2, axis=1)
        share = (v + 1) / 2
        scale = scale * np.exp(0.5 * (share * c["log_beta"] + (1 - share) * c["log_beta_tilde"]))
    raw = c["p"] * x + c["q"] * f
    denoised = np.clip(raw, -table.clip.limit, table.clip.limit) if table.clip.kind == "clamp" else raw
    return c["a"] * x + c["b"] * denoised + c["h"] * raw + scale * z


def assert_rows_agree(theirs, table, step):
    theirs.alphas_cumprod = theirs.alphas_cumprod.double()
    if getattr(theirs, "final_alpha_cumprod", 1.0) != 1.0:
        theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    np.testing.assert_array_equal(table.timesteps, theirs.timesteps.numpy())
    rng = np.random.default_rng(0)
    rows = range(len(table)) if len(table) < 100 else [*range(0, len(table), 97), len(table) - 2, len(table) - 1]
    for row in rows:
        x, z = rng.standard_normal((2, *SHAPE))
        f = rng.uniform(-1, 1, (2, 3 * (1 + table.learned_variance), 4, 4))
        expected = step(*map(torch.tensor, (f, int(table.timesteps[row]), x, z))).numpy()
        size = max(1, abs(table.column("p")[row]))
        # theirs keeps 1e-10 z in a last row of small variance
        np.testing.assert_allclose(
            apply(table, row, x, f, z), expected, rtol=1e-11, atol=1e-9 * size, err_msg=f"row {row}"
        )


@spacings
@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"])
@pytest.mark.parametrize("steps_offset", [0, 1])
def test_rows_of_ddpm_to_the_last(monkeypatch, spacing, variance_type, steps_offset):
    """The noise of a last row above timestep 0 is kept, as theirs is."""
    config = {"timestep_spacing": spacing, "variance_type": variance_type, "steps_offset": steps_offset}
    theirs = DDPMScheduler(**config)

    def step(f, t, x, z):
        monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: z)
        return theirs.step(f, t, x).prev_sample

    for steps in STEP_COUNTS[steps_offset:]:
        theirs.set_timesteps(steps)
        assert_rows_agree(theirs, table(read(DDPM, **config), steps), step)


@spacings
@pytest.mark.parametrize("set_alpha_to_one", [True, False])
@pytest.mark.parametrize("steps_offset", [0, 1, 3])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_rows_of_ddim_step_by_their_stride(spacing, set_alpha_to_one, steps_offset, eta):
    config = {"timestep_spacing": spacing, "set_alpha_to_one": set_alpha_to_one, "steps_offset": steps_offset}
    theirs = DDIMScheduler(**config)
    for steps in (600, 50, 27):  # 600 with an offset steps to timestep 0, 1, 2 after its last
        theirs.set_timesteps(steps)
        assert_rows_agree(
            theirs,
            table(read(DDIM, **config), steps, eta=eta),
            lambda f, t, x, z: theirs.step(f, t, x, eta=eta, variance_noise=z).prev_sample,
        )


@pytest.mark.parametrize("kind", [DDPM, DDIM])
@pytest.mark.parametrize("rescale_betas_zero_snr", [False, True])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"])
@pytest.mark.parametrize("timesteps", [1000, 37])
def test_every_schedule(kind, beta_schedule, rescale_betas_zero_snr, timesteps):
    if kind == DDIM and beta_schedule in ("sigmoid", "laplace"):
        with pytest.raises(CheckpointError, match=f"beta_schedule is '{beta_schedule}', which DDIMScheduler"):
            read_scheduler({"beta_schedule": beta_schedule}, "x.json", kind=kind, steps=50)
        return
    config = {"beta_schedule": beta_schedule, "num_train_timesteps": timesteps}
    config["rescale_betas_zero_snr"] = rescale_betas_zero_snr
    try:
        scheduler = (DDPMScheduler if kind == DDPM else DDIMScheduler)(**config)
    except NotImplementedError as error:
        pytest.skip(f"this diffusers: {error}")
    theirs = scheduler.alphas_cumprod.double().numpy()
    info = read(kind, **config).schedule
    ours = NAMES.get(beta_schedule, beta_schedule)
    assert info.name == ours + ("-zero-snr" if rescale_betas_zero_snr else "")
    np.testing.assert_allclose(Schedule.from_betas(info.betas).alphas_cumprod, theirs, rtol=1e-11, atol=0)
    closed_form = make_schedule(ours, timesteps=timesteps)
    if rescale_betas_zero_snr:
        closed_form = closed_form.with_zero_terminal_snr()
    np.testing.assert_allclose(closed_form.alphas_cumprod, theirs, rtol=1e-4, atol=1e-7)


def test_noise_prediction_at_zero_snr_is_refused_where_it_is_visited():
    scheduler = read(DDPM, rescale_betas_zero_snr=True)
    with pytest.raises(OptionError, match="zero terminal SNR"):
        table(scheduler, None)
    assert table(scheduler, 50).timesteps[0] == 980


def test_trained_betas():
    betas = np.linspace(1e-3, 0.2, 10)
    info = read(DDPM, trained_betas=betas.tolist(), num_train_timesteps=10).schedule
    assert info.name == "trained"
    np.testing.assert_allclose(info.betas, betas, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "clip"),
    [
        ({}, {"kind": "clamp", "limit": 1.0}),
        ({"clip_sample_range": 0.8}, {"kind": "clamp", "limit": 0.8}),
        ({"clip_sample": False, "clip_sample_range": 3.0}, {"kind": "none"}),
        (
            {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0},
            {"kind": "dynamic", "ratio": 0.9, "max_threshold": 2.0},
        ),
    ],
)
def test_clips(config, clip):
    found = msgspec.to_builtins(read(DDIM, **config).defaults.clip)
    assert {name: found[name] for name in clip} == clip


def test_default_steps_are_the_pipelines_or_all():
    assert read(DDPM).defaults.steps == 1000
    assert read(DDIM).defaults.steps == 50
    assert read(DDIM, num_train_timesteps=20).defaults.steps == 20


def test_listed_timesteps_do_not_take_the_spacing_of_the_plan():
    scheduler = read(DDIM, timestep_spacing="trailing")
    assert list(table(scheduler, [900, 30, 2]).timesteps) == [900, 30, 2]
    respaced = table(scheduler, "ddim50")
    assert (len(respaced), respaced.timesteps[0]) == (50, 980)


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
def test_fields_and_defaults_are_those_of_this_diffusers(scheduler):
    """A field that is new in diffusers shows here."""
    parameters = inspect.signature(scheduler.__init__).parameters
    ours = dict(zip(SchedulerConfig.__struct_fields__, SchedulerConfig.__struct_defaults__, strict=True))
    for name, parameter in parameters.items():
        if name != "self":
            assert ours[name] == parameter.default


def test_fields_that_only_the_other_scheduler_reads_are_not_read():
    config = {"variance_type": "learned", "set_alpha_to_one": False}
    assert read_scheduler(config, "x.json", kind=DDIM, steps=50).variance_type == "fixed_small"
    harmless = {"set_alpha_to_one": False, "_diffusers_version": "9", "timestep_values": None, "use_ema": False}
    assert "set_alpha_to_one" not in read_scheduler(harmless, "x.json", kind=DDPM, steps=1000).defaults.options


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"variance_type": "fixed_large_log"}, "'fixed_large_log': .* NaN; use 'fixed_large'"),
        ({"variance_type": "learned"}, "'learned': a network that returns the variance itself"),
        ({"variance_type": "huge"}, r"variance_type is 'huge': expected one of \['fixed_small'"),
        ({"beta_schedule": "quadratic"}, "beta_schedule is 'quadratic', which DDPMScheduler does not have"),
        ({"prediction_type": "flow"}, "prediction_type is 'flow', expected one of"),
        ({"timestep_spacing": "log"}, "timestep_spacing is 'log', expected one of"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas has 2 values, but num_train_timesteps is 1000"),
        ({"trained_betas": [0.1, 2.0], "num_train_timesteps": 2}, r"alphas_cumprod|betas\[1\]"),
        ({"beta_start": "small"}, "Expected `float`, got `str`.*beta_start"),
        ({"num_train_timesteps": 0}, "num_train_timesteps"),
        ({"clip_sample_range": 0.0}, "clip_sample_range is 0.0"),
        ({"thresholding": True, "sample_max_value": 0.5}, "sample_max_value is 0.5, expected at least 1"),
        ({"thresholding": True, "dynamic_thresholding_ratio": 0.0}, "dynamic_thresholding_ratio is 0.0"),
        ({"use_karras_sigmas": True}, "'use_karras_sigmas' .* not one of DDPMScheduler"),
    ],
)
def test_refused_by_name(config, message):
    with pytest.raises(CheckpointError, match=message):
        read_scheduler(config, "x.json", kind=DDPM, steps=1000)


def test_why_fixed_large_log_is_refused():
    scheduler = DDPMScheduler(variance_type="fixed_large_log")
    scheduler.set_timesteps(50)
    assert scheduler.step(torch.zeros(SHAPE), 500, torch.ones(SHAPE)).prev_sample.isnan().all()
