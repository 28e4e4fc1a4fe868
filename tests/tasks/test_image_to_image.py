"""Redrawing: SDEdit written out in numpy and `sample`, and how strength counts."""

from typing import Any

import numpy as np
import pytest

from pysdk import Sampler
from pysdk.errors import OptionError, OptionTypeError
from pysdk.noise import normal


def test_it_is_sampling_from_a_noised_start(conditional: Sampler, images: np.ndarray) -> None:
    drawn = conditional.image_to_image(
        images, timestep=450, steps=10, solver="ddim", labels=2, seed=4, start=6, output="float32"
    )
    abar = conditional.schedule.alphas_cumprod[450]
    signal, noise = np.float32(np.sqrt(abar)), np.float32(np.sqrt(1 - abar))
    x0 = (images.transpose(0, 3, 1, 2) / 127.5 - 1).astype(np.float32)
    initial = signal * x0 + noise * normal(4, np.arange(6, 11), 1, (1, 8, 8))  # the first row draws it
    steps = [450, 400, 300, 200, 100, 0]
    expected = conditional.sample(5, steps=steps, solver="ddim", labels=2, initial=initial, output="float32")
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    ("strength", "timestep"), [(0.1, 0), (0.25, 100), (0.29, 100), (0.5, 400), (None, 400), (0.99, 800), (1, 900)]
)
def test_strength_is_the_share_of_steps(conditional: Sampler, images: np.ndarray, strength: Any, timestep: int) -> None:
    options: dict[str, Any] = {"steps": 10, "solver": "ddpm", "labels": 0}
    np.testing.assert_array_equal(
        conditional.image_to_image(images, strength=strength, **options),
        conditional.image_to_image(images, timestep=timestep, **options),
    )


def test_little_strength_changes_little(conditional: Sampler, images: np.ndarray) -> None:
    changes = [
        np.abs(conditional.image_to_image(images, strength=strength, steps=50).astype(int) - images).mean()
        for strength in (0.02, 0.2, 0.6)
    ]
    assert changes == sorted(changes)
    assert changes[0] < 3


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, {"strength": 0}, "strength is 0, less than one of 10 steps; use 0.1 or more"),
        (OptionError, {"strength": 0.05}, "strength is 0.05, less than one of 10 steps"),
        (OptionError, {"strength": 1.5}, "strength is 1.5, expected a number above 0 and up to 1"),
        (OptionTypeError, {"strength": "much"}, "strength is 'much'"),
        (OptionError, {"strength": 0.5, "timestep": 3}, "strength and timestep both say how far to diffuse"),
        (OptionError, {"timestep": 1000}, "timestep is 1000, expected a whole number from 0 to 999"),
        (OptionError, {"solver": "reverse_ddim"}, "solver 'reverse_ddim' with these options starts at timestep"),
    ],
)
def test_refusals(conditional: Sampler, images: np.ndarray, error: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        conditional.image_to_image(images, steps=10, **options)
