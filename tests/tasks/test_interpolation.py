"""Interpolation: the way between two images, and its ends."""

from typing import Any

import numpy as np
import pytest

from pysdk import Clip, Sampler
from pysdk.errors import OptionError, OptionTypeError
from pysdk.noise import normal
from pysdk.tasks.interpolate import slerp


def test_slerp_goes_along_the_sphere() -> None:
    rng = np.random.default_rng(0)
    a, b = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 1, 9, 9)))
    a, b = a.astype(np.float32), b.astype(np.float32)
    weights = np.linspace(0, 1, 7)
    path = slerp(a, b, weights)
    np.testing.assert_array_equal(path[0], a)
    np.testing.assert_array_equal(path[-1], b)
    np.testing.assert_allclose(np.linalg.norm(path.reshape(7, -1), axis=1), 1, atol=1e-6)
    angles = [np.arccos(np.sum(path[i].astype(float) * path[i + 1])) for i in range(6)]
    np.testing.assert_allclose(angles, angles[0], atol=1e-5)
    np.testing.assert_array_equal(slerp(a, a, weights), np.stack([a] * 7))
    np.testing.assert_allclose(slerp(a, 3 * a, weights)[3], 2 * a, atol=1e-6)
    with pytest.raises(OptionError, match="opposite latents"):
        slerp(a, -a, weights)


def test_between_two_images_of_the_gallery(conditional: Sampler) -> None:
    frames = conditional.interpolate(2, 5, 4, seed=9, labels=1, steps=6)
    ends = [
        conditional.sample(1, seed=9, start=i, labels=1, steps=6, solver="ddim", clip=Clip.none())[0] for i in (2, 5)
    ]
    np.testing.assert_array_equal(frames[[0, -1]], ends)
    middle = slerp(*normal(9, [2, 5], 0, (1, 8, 8)), np.array([1 / 3]))
    np.testing.assert_array_equal(frames[1:2], conditional.decode(middle, steps=6, labels=1))


def test_between_two_images(conditional: Sampler, images: np.ndarray) -> None:
    frames = conditional.interpolate(images[0], images[1], 3, labels=[0, 1, 2], steps=6, output="float32")
    latents = conditional.encode(images[:2], labels=[0, 2], steps=6)
    expected = conditional.decode(slerp(*latents, np.array([0, 0.5, 1])), labels=[0, 1, 2], steps=6, output="float32")
    np.testing.assert_array_equal(frames, expected)


@pytest.mark.parametrize("options", [{"solver": "ddpm", "variance": "large"}, {"solver": "ddim", "eta": 0.0}])
def test_at_a_timestep(conditional: Sampler, images: np.ndarray, options: dict[str, Any]) -> None:
    """DDPM, figure 8, written out; the frames share all noise."""
    frames = conditional.interpolate(
        images[0], images[1], 3, timestep=430, steps=10, seed=5, start=3, labels=2, output="float32", **options
    )
    abar = conditional.schedule.alphas_cumprod[430]
    x0 = images[:2].transpose(0, 3, 1, 2) / 127.5 - 1
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * normal(5, [3, 4], 0, (1, 8, 8))
    mixed = np.stack([x_t[0], (x_t[0] + x_t[1]) / 2, x_t[1]]).astype(np.float32)
    for frame, start in zip(frames, mixed, strict=True):
        (expected,) = conditional.sample(
            1,
            steps=[430, 400, 300, 200, 100, 0],
            initial=start[None],
            seed=5,
            start=3,
            labels=2,
            output="float32",
            **options,
        )
        np.testing.assert_allclose(frame, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("error", "arguments", "options", "message"),
    [
        (OptionError, (0, 1, 1), {}, "n is 1, expected a whole number from 2"),
        (
            OptionError,
            (0, np.zeros((8, 8, 1), np.uint8)),
            {},
            "one of first and second is a number .* give two of a kind",
        ),
        (OptionError, (-1, 1), {}, "first is -1"),
        (OptionTypeError, (0, 1), {"timestep": 10}, "first is int64, expected uint8"),
        (OptionTypeError, (0, 1), {"seed": [1, 2]}, r"seed is \[1, 2\], expected a whole number"),
        (OptionError, (np.zeros((9, 8, 1), np.uint8),) * 2, {}, r"first is uint8 of shape \(1, 9, 8, 1\)"),
        (OptionError, (np.zeros((8, 8, 1), np.uint8),) * 2, {"timestep": 1000}, "timestep is 1000, expected .* to 999"),
        (OptionError, (0, 1), {"strength": 0.5}, "has no option 'strength'"),
    ],
)
def test_refusals(conditional: Sampler, error: Any, arguments: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        conditional.interpolate(*arguments, **{"steps": 5, "labels": 1, **options})
