"""Whole chains in float64, ours by table and diffusers' by scheduler, of one network and one noise.

Two chains agree if the network is asked the same questions, (t, input), and the last x is the same. Data are
N(0, 1/4) with a ripple, so that nothing is linear.
"""

import importlib

import numpy as np
import torch

from pysdk.diffusion.edm import EdmSchedule, preconditioning
from pysdk.diffusion.noise_levels import sigmas_of
from pysdk.diffusion.table import STEP_COLUMNS

SHAPE = (1, 2, 2, 2)


def denoiser(x, sigma):
    """D(x/S, sigma), float64."""
    return x / 4 / (0.25 + sigma**2) + 0.05 * np.sin(5 * x / (1 + sigma))


def make_network(schedule, prediction_type):
    """(input, t) -> output, of a network of timesteps or of sigma, with `denoiser` inside."""
    if isinstance(schedule, EdmSchedule):

        def of_sigma(x, t):
            if prediction_type == "sample":
                return denoiser(x, t)
            sigma = np.exp(4 * t)
            c_in, c_skip, c_out = preconditioning(sigma, schedule.sigma_data)
            return (denoiser(x / c_in, sigma) - c_skip * x / c_in) / c_out

        return of_sigma
    logs = np.log(sigmas_of(schedule))

    def of_time(x, t):
        sigma = np.exp(np.interp(t, np.arange(len(logs)), logs))
        signal = 1 / np.hypot(1, sigma)
        data = denoiser(x / signal, sigma)
        eps = (x / signal - data) / sigma
        return {"epsilon": eps, "sample": data, "v_prediction": signal * (eps - sigma * data)}[prediction_type]

    return of_time


def run_rows(table, network, noise, start):
    """(questions, x) of a table: noise (K, *SHAPE), start is x itself."""
    x, y, d1, d2 = start, np.zeros_like(start), np.zeros_like(start), np.zeros_like(start)
    questions = []
    for row, z in zip(table.rows, noise, strict=True):
        c = dict(zip(STEP_COLUMNS, row, strict=True))
        questions.append((c["t"], c["c_in"] * x))
        raw = c["p"] * x + c["q"] * network(c["c_in"] * x, c["t"])
        data = np.clip(raw, -table.clip.limit, table.clip.limit) if table.clip.kind == "clamp" else raw
        new = c["a"] * x + c["b"] * data + c["h"] * raw + c["c1"] * d1 + c["c2"] * d2 + c["g"] * y + c["s"] * z
        y = x if c["save"] else y
        x, d1, d2 = new, data, d1
    return questions, x


class InFloat64(torch.Tensor):
    """Some schedulers cast to float32 on the way; this stays what it is."""

    def to(self, *args, **kwargs):
        return self if torch.float32 in (*args, kwargs.get("dtype")) else super().to(*args, **kwargs)


def tensor(array):
    return torch.tensor(array, dtype=torch.float64).as_subclass(InFloat64)


def run_scheduler(monkeypatch, scheduler, network, noise, start, sigmas, timesteps, in_sigma):
    """(questions, x) of a scheduler made to visit our levels; its x is x/S if `in_sigma`, else x of a VP process."""
    module = importlib.import_module(type(scheduler).__module__)
    draws = iter(noise)
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: tensor(next(draws)))
    scheduler.set_timesteps(len(sigmas) - 1)
    levels, visited = tensor(sigmas), tensor(timesteps)
    if type(scheduler).__name__ == "HeunDiscreteScheduler":
        levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
    scheduler.sigmas, scheduler.timesteps = levels.as_subclass(torch.Tensor), visited
    scheduler.set_begin_index(0)
    sample, questions = tensor(start), []
    for t in scheduler.timesteps:
        asked = scheduler.scale_model_input(sample, t)
        questions.append((float(t), asked.numpy()))
        sample = scheduler.step(tensor(network(asked.numpy(), float(t))), t, sample).prev_sample
        sample = sample.as_subclass(InFloat64)
    return questions, sample.numpy()


def distance(ours, theirs):
    """Largest difference of inputs and of the result, and of timesteps."""
    (our_questions, our_x), (their_questions, their_x) = ours, theirs
    assert len(our_questions) == len(their_questions)
    late = max(abs(a[0] - b[0]) for a, b in zip(our_questions, their_questions, strict=True))
    inputs = max(np.abs(a[1] - b[1]).max() for a, b in zip(our_questions, their_questions, strict=True))
    return max(inputs, np.abs(our_x - their_x).max()), late
