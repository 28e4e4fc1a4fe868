"""Single rows of a step table in float64, and diffusers' schedulers made to run in it."""

import numpy as np
import torch

from pysdk.diffusion.schedule import Schedule

SHAPE = (2, 3, 4, 4)
SCHEDULES = {"linear": Schedule.linear(), "cosine": Schedule.cosine()}
SHORT = {"linear": Schedule.linear(100, 1e-3, 0.2), "cosine": Schedule.cosine(100)}
"""The same processes in a tenth of the timesteps, for whole chains."""
STEP_COUNTS = (1000, 50, 10)


def apply(table, row, x, f, z):
    """One row on float64 arrays (B, C, H, W); f has 2C channels with learned variance."""
    c = {name: table.column(name)[row] for name in ("p", "q", "a", "b", "h", "s", "log_beta", "log_beta_tilde")}
    scale = c["s"]
    if table.learned_variance:
        f, v = np.split(f, 2, axis=1)
        share = (v + 1) / 2
        scale = scale * np.exp(0.5 * (share * c["log_beta"] + (1 - share) * c["log_beta_tilde"]))
    raw = c["p"] * x + c["q"] * f
    denoised = raw
    if table.clip.kind == "clamp":
        denoised = np.clip(raw, -table.clip.limit, table.clip.limit)
    if table.clip.kind == "dynamic":
        threshold = np.quantile(np.abs(raw).reshape(len(x), -1), table.clip.ratio, axis=1).reshape(-1, 1, 1, 1)
        threshold = np.clip(threshold, 1, table.clip.max_threshold)
        denoised = np.clip(raw, -threshold, threshold) / threshold
    return c["a"] * x + c["b"] * denoised + c["h"] * raw + scale * z


def random_row(schedule, t, channels=3):
    """(x, f, z): x as the forward process makes it, f and z normal."""
    rng = np.random.default_rng(t)
    f, z = rng.standard_normal((SHAPE[0], channels, *SHAPE[2:])), rng.standard_normal(SHAPE)
    data = rng.uniform(-1, 1, SHAPE)
    abar = schedule.alphas_cumprod[t]
    return np.sqrt(abar) * data + np.sqrt(1 - abar) * rng.standard_normal(SHAPE), f, z


def in_float64(scheduler, schedule):
    """diffusers keeps its arrays in float32; give it ours."""
    scheduler.betas, scheduler.alphas = torch.tensor(schedule.betas), torch.tensor(schedule.alphas)
    scheduler.alphas_cumprod = torch.tensor(schedule.alphas_cumprod)
    if getattr(scheduler, "final_alpha_cumprod", 1.0) != 1.0:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


def assert_rows_agree(table, step, schedule, rows=None):
    for row in range(len(table)) if rows is None else rows:
        t = int(table.timesteps[row])
        x, f, z = random_row(schedule, t, channels=3 * (1 + table.learned_variance))
        ours = apply(table, row, x, f, z)
        theirs = step(torch.tensor(f), t, torch.tensor(x), torch.tensor(z)).numpy()
        # x_0 is as large as p where it is not clipped
        size = max(1, table.column("p")[row])
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13 * size, err_msg=f"row {row}")
