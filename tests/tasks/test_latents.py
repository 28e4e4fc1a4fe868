"""encode and decode: inverse to one another as the steps grow."""

from typing import Any

import numpy as np
import pytest

from pysdk import Clip, Sampler
from pysdk.errors import OptionError, OptionTypeError
from pysdk.noise import normal


def test_more_steps_find_the_way_back(unconditional: Sampler) -> None:
    """The reverse rows take eps from where they come, not from where they go: an error of first order in the step."""
    noise = normal(0, np.arange(3), 0, (3, 8, 8))
    errors = []
    for steps in (12, 25, 50, 100):
        images = np.clip(unconditional.decode(noise, steps=steps, output="float32"), -1, 1)
        back = unconditional.decode(unconditional.encode(images, steps=steps), steps=steps, output="float32")
        errors.append(float(np.sqrt(np.mean((back - images) ** 2))))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 4


def test_latents_hold_the_image(conditional: Sampler, images: np.ndarray) -> None:
    latents = conditional.encode(images, steps=50, labels=1)
    assert (latents.shape, latents.dtype) == ((5, 1, 8, 8), np.float32)
    wrong_class = conditional.encode(images, steps=50, labels=2)
    assert not np.array_equal(latents, wrong_class)


def test_decode_is_ddim_without_a_clip(conditional: Sampler) -> None:
    noise = normal(4, np.arange(3), 0, (1, 8, 8))
    decoded = conditional.decode(noise, steps=7, labels=[0, 1, 2])
    drawn = conditional.sample(3, seed=4, solver="ddim", steps=7, clip=Clip.none())
    np.testing.assert_array_equal(decoded, drawn)
    clipped = conditional.decode(noise, steps=7, labels=[0, 1, 2], clip=Clip.clamp(1.0))
    np.testing.assert_array_equal(clipped, conditional.sample(3, seed=4, solver="ddim", steps=7))


@pytest.mark.parametrize(
    ("error", "latents", "options", "message"),
    [
        (OptionTypeError, [[0.0]], {}, r"latents are list, expected a float32 array \(n, C, H, W\)"),
        (
            OptionError,
            np.zeros((2, 1, 8, 8)),
            {},
            r"latents is float64 .* expected a float32 array of shape \(2, 1, 8, 8",
        ),
        (OptionError, np.zeros((2, 8, 8), np.float32), {}, r"latents is float32 of shape \(2, 8, 8\)"),
        (OptionError, np.full((1, 1, 8, 8), np.inf, np.float32), {}, "latents holds NaN or infinity"),
        (OptionError, np.zeros((), np.float32), {}, r"latents is float32 of shape \(\), expected .* \(1, 8, 8\)"),
        (OptionError, np.zeros((2, 1, 8, 8), np.float32), {"strength": 1}, "solver 'ddim' has no option 'strength'"),
    ],
)
def test_refusals(conditional: Sampler, error: Any, latents: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        conditional.decode(latents, **options)


def test_encoding_has_no_options_of_noise(conditional: Sampler, images: np.ndarray) -> None:
    for name, value in (("eta", 0.5), ("variance", "small")):
        with pytest.raises(OptionError, match=f"solver 'reverse_ddim' has no option '{name}'"):
            conditional.encode(images, **{name: value})
