"""Inpainting: RePaint written out in torch, its schedule of jumps, and what is kept."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pysdk import Sampler
from pysdk.errors import OptionError, OptionTypeError
from pysdk.noise import KNOWN, normal
from pysdk.tasks.inpaint import moves
from pysdk.training.checkpoint import load_model

MASK = np.zeros((8, 8), bool)
MASK[2:6, 3:] = True


def positions(total: int, jump_length: int, jump_n_sample: int) -> list[int]:
    """Appendix B of the paper: the timesteps t of x_t, in order, -1 for the image."""
    times, t = [], total
    jumps = dict.fromkeys(range(0, total - jump_length, jump_length), jump_n_sample - 1)
    while t >= 1:
        t -= 1
        times.append(t)
        while jumps.get(t, 0) > 0:
            jumps[t] -= 1
            times += list(range(t + 1, t + jump_length + 1))
            t += jump_length
    return [*times, -1]


@pytest.mark.parametrize(("total", "length", "samples"), [(250, 10, 10), (50, 10, 3), (12, 5, 2), (6, 1, 4), (5, 7, 1)])
def test_the_moves_are_those_of_the_paper(total: int, length: int, samples: int) -> None:
    visited = [total - 1]
    for start, end in moves(total, length, samples):
        assert visited[-1] == start - 1
        visited += [start - 2] if end < start else list(range(start, end))
    assert visited == positions(total, length, samples)


def repaint(sampler: Sampler, network: Any, images: np.ndarray, total: int, length: int, samples: int) -> np.ndarray:
    """Algorithm 1 with DDPM's larger variance, step by step in float64 but for the network."""
    timesteps = np.arange(total) * (1000 // total)
    abar = np.append(sampler.schedule.alphas_cumprod[timesteps], 1.0)  # abar[-1] is the image's
    index, labels = np.arange(len(images)), torch.arange(len(images)) % 3
    x0 = images.transpose(0, 3, 1, 2) / 127.5 - 1
    x, draw = normal(8, index, 0, (1, 8, 8)).astype(np.float64), 0
    walk = positions(total, length, samples)
    place = 0
    while place < len(walk) - 1:
        t, s = walk[place], walk[place + 1]
        draw += 1
        z = normal(8, index, draw, (1, 8, 8))
        if s > t:  # single steps forward, put together
            s = t + length
            x = math.sqrt(abar[s] / abar[t]) * x + math.sqrt(1 - abar[s] / abar[t]) * z
            place += length
            continue
        with torch.inference_mode():
            time = torch.tensor([float(timesteps[t])])
            eps = network(torch.from_numpy(x.astype(np.float32)), time, labels)[:, :1].double().numpy()
        estimate = np.clip((x - math.sqrt(1 - abar[t]) * eps) / math.sqrt(abar[t]), -1, 1)
        beta = 1 - abar[t] / abar[s]
        x = (math.sqrt(abar[s]) * beta * estimate + math.sqrt(1 - beta) * (1 - abar[s]) * x) / (1 - abar[t])
        x += math.sqrt(beta) * z * (s >= 0)
        known = math.sqrt(abar[s]) * x0 + math.sqrt(1 - abar[s]) * normal(8, index, KNOWN + draw - 1, (1, 8, 8))
        x = np.where(MASK, x, known)
        place += 1
    return x


@pytest.mark.parametrize(("steps", "length", "samples"), [(20, 5, 3), (10, 4, 1), (8, 1, 2)])
def test_it_is_the_algorithm_of_the_paper(
    conditional: Sampler, conditional_checkpoint: Path, images: np.ndarray, steps: int, length: int, samples: int
) -> None:
    network = load_model(conditional_checkpoint)[1]
    got = conditional.inpaint(
        images, MASK, steps=steps, jump_length=length, jump_n_sample=samples, solver="ddpm", variance="large",
        seed=8, labels=[0, 1, 2, 0, 1], output="float32",
    )  # fmt: skip
    expected = repaint(conditional, network, images, steps, length, samples)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_what_is_kept_is_unchanged(conditional: Sampler, images: np.ndarray, output: Any) -> None:
    given = images if output == "uint8" else np.random.default_rng(1).uniform(-1, 1, (5, 1, 8, 8)).astype(np.float32)
    masks = np.random.default_rng(2).random((5, 8, 8)) < 0.5
    drawn = conditional.inpaint(given, masks, steps=5, jump_length=2, jump_n_sample=2, output=output)
    where = masks[..., None] if output == "uint8" else masks[:, None]
    np.testing.assert_array_equal(np.where(where, 0, drawn), np.where(where, 0, given))
    assert (drawn != given)[np.broadcast_to(where, given.shape)].mean() > 0.9


def test_masks_of_numbers_and_noise_of_ones_own(conditional: Sampler, images: np.ndarray) -> None:
    options: dict[str, Any] = {"steps": 6, "jump_length": 2, "jump_n_sample": 2, "solver": "ddpm", "seed": 4}
    expected = conditional.inpaint(images, MASK, **options)
    np.testing.assert_array_equal(conditional.inpaint(images, MASK * np.uint8(255), **options), expected)
    np.testing.assert_array_equal(conditional.inpaint(images, np.stack([MASK] * 5) * 1.0, **options), expected)
    own = conditional.inpaint(images, MASK, noise=lambda draw, index: normal(4, index, draw, (1, 8, 8)), **options)
    np.testing.assert_array_equal(own, expected)


@pytest.mark.parametrize(
    ("error", "mask", "options", "message"),
    [
        (OptionError, MASK[:7], {}, r"mask has shape \(7, 8\), expected \(8, 8\) for all images or \(5, 8, 8\)"),
        (OptionError, np.stack([MASK] * 3), {}, r"mask has shape \(3, 8, 8\)"),
        (OptionError, np.linspace(0, 1, 64).reshape(8, 8), {}, "mask holds 64 different values, expected two: False"),
        (OptionError, np.where(MASK, 1, -1), {}, "mask holds 2 different values, expected two"),
        (OptionError, np.where(MASK, np.nan, 0), {}, "mask holds NaN"),
        (OptionError, np.zeros((8, 8), bool), {}, "mask is False everywhere, so there is nothing to draw"),
        (OptionTypeError, [["x"] * 8] * 8, {}, "mask has dtype <U1, expected bool"),
        (OptionError, MASK, {"jump_length": 0}, "jump_length is 0"),
        (OptionError, MASK, {"jump_n_sample": 0}, "jump_n_sample is 0"),
        (
            OptionError,
            MASK,
            {"jump_length": 10},
            "jump_length is 10, but the chain has 10 steps, so it would never jump",
        ),
        (OptionTypeError, MASK, {"jump_length": 2.5}, "jump_length is 2.5"),
        (OptionError, MASK, {"noise": np.zeros((11, 5, 1, 8, 8), np.float32)}, "noise is not a callable"),
    ],
)
def test_refusals(
    conditional: Sampler, images: np.ndarray, error: Any, mask: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(error, match=message):
        conditional.inpaint(images, mask, steps=10, **options)


def test_no_jumps_need_no_room(conditional: Sampler, images: np.ndarray) -> None:
    assert conditional.inpaint(images, MASK, steps=2, jump_n_sample=1).shape == images.shape
