"""Sampler.stream: the same images while they form."""

import gc
from typing import Any

import numpy as np
import pytest
from kit.tiny_networks import multiplication, write_toy_plan

from pysdk import Images, Preview, Sampler
from pysdk.errors import EngineError, NumericalError, OptionError, OptionTypeError
from pysdk.noise import normal


@pytest.mark.parametrize(
    ("every", "steps"),
    [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (7, [7]), (100, [7])],
)
def test_previews_come_every_so_many_steps(conditional: Sampler, every: int, steps: list[int]) -> None:
    timesteps = [700, 600, 500, 400, 100, 7, 0]
    previews = list(conditional.stream(2, every=every, steps=timesteps, solver="ddpm"))
    assert [preview.step for preview in previews] == steps
    assert {preview.total for preview in previews} == {7}
    assert [preview.timestep for preview in previews] == [timesteps[step - 1] for step in steps]


@pytest.mark.parametrize("guidance_scale", [None, 2.0])
@pytest.mark.parametrize("n", [1, 4, 9])
def test_the_last_preview_is_the_sample(conditional: Sampler, n: int, guidance_scale: float | None) -> None:
    request: dict[str, Any] = {"seed": 3, "start": 2, "steps": 8, "solver": "ddpm", "guidance_scale": guidance_scale}
    previews = list(conditional.stream(n, every=3, output="float32", **request))
    expected = conditional.sample(n, output="float32", **request)
    np.testing.assert_array_equal(previews[-1].x.view(np.uint32), expected.view(np.uint32))
    np.testing.assert_array_equal(previews[-1].denoised, previews[-1].x)  # the chain ends on its estimate
    for preview in previews:
        assert preview.x.shape == preview.denoised.shape == (n, 1, 8, 8)
        assert np.isfinite(preview.x).all()
        assert np.abs(preview.denoised).max() <= 1
    assert not np.array_equal(previews[0].x, previews[1].x)


def test_previews_are_the_callers(conditional: Sampler) -> None:
    stream = conditional.stream(2, steps=4, output="float32")
    first = next(stream)
    kept = first.x.copy(), first.denoised.copy()
    list(stream)
    np.testing.assert_array_equal((first.x, first.denoised), kept)


def test_kinds_of_output(unconditional: Sampler) -> None:
    (preview,) = unconditional.stream(2, steps=3, every=3)
    assert isinstance(preview, Preview)
    assert isinstance(preview.x, Images)
    assert isinstance(preview.denoised, Images)
    (preview,) = unconditional.stream(2, steps=3, every=3, output="pil")
    assert preview.x[0].size == preview.denoised[1].size == (8, 8)
    assert list(unconditional.stream(0)) == []


def test_noise_of_ones_own(conditional: Sampler) -> None:
    draws = np.stack([normal(0, np.arange(6), draw, (1, 8, 8)) for draw in range(4)])
    request: dict[str, Any] = {"n": 6, "steps": 3, "solver": "ddpm"}
    *_, last = conditional.stream(noise=draws, **request)
    np.testing.assert_array_equal(last.x, conditional.sample(**request))


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, {"n": -1}, "n is -1"),
        (OptionError, {"every": 0}, "every is 0, expected a whole number from 1"),
        (OptionTypeError, {"every": 1.5}, "every is 1.5"),
        (OptionError, {"output": "jpeg"}, "output is 'jpeg'"),
        (OptionError, {"solver": "magic"}, "solver is 'magic'"),
        (OptionError, {"noise": lambda draw, images: np.zeros(3, np.float32)}, r"noise returned for draw 0 is float32"),
    ],
)
def test_errors_come_from_the_call(conditional: Sampler, error: Any, options: dict, message: str) -> None:
    """Not from the first preview."""
    with pytest.raises(error, match=message):
        conditional.stream(**options)


def test_a_batch_too_small_for_guidance(conditional_plan: Any) -> None:
    with Sampler(conditional_plan, threads=1, batch_size=1) as sampler:
        for draw in (sampler.stream, sampler.sample):
            with pytest.raises(OptionError, match="batch_size is 1, but guidance runs every image twice"):
                draw(1, guidance_scale=2.0)


def test_a_closed_sampler(tmp_path: Any) -> None:
    sampler = Sampler(write_toy_plan(tmp_path / "toy.plan"))
    stream = sampler.stream(2, output="float32")
    next(stream)
    sampler.close()
    with pytest.raises(EngineError, match="this sampler is closed; open the plan again"):
        sampler.stream(1)
    *_, last = stream  # what has begun goes on
    assert np.isfinite(last.x).all()


def test_leaving_early(conditional: Sampler) -> None:
    expected = conditional.sample(5, steps=6)
    for leave in ("close", "drop", "throw"):
        stream = conditional.stream(5, steps=6)
        next(stream)
        if leave == "close":
            stream.close()
            assert list(stream) == []
        elif leave == "throw":
            with pytest.raises(KeyboardInterrupt):
                stream.throw(KeyboardInterrupt)
        del stream
    gc.collect()
    np.testing.assert_array_equal(conditional.sample(5, steps=6), expected)


def test_streams_and_samples_do_not_disturb_each_other(conditional: Sampler) -> None:
    one = conditional.stream(2, steps=5, seed=1, output="float32")
    two = conditional.stream(2, steps=5, seed=2, output="float32")
    last = None
    for pair in zip(one, two, strict=True):
        conditional.sample(2, steps=2, seed=3)
        last = pair
    assert last is not None
    for preview, seed in zip(last, (1, 2), strict=True):
        np.testing.assert_array_equal(preview.x, conditional.sample(2, steps=5, seed=seed, output="float32"))


def test_nan_on_the_way_is_an_error(tmp_path: Any) -> None:
    path = write_toy_plan(tmp_path / "toy.plan", multiplication(float("nan")))
    with Sampler(path) as sampler:
        stream = sampler.stream(1, start=3)
        with pytest.raises(NumericalError, match="image 3 became NaN or infinite in 10 rows"):
            next(stream)
