"""Which timesteps a chain visits, against diffusers' schedulers and the published respacing rule."""

import numpy as np
import pytest
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st

from pysdk.diffusion.timesteps import SPACINGS, make_timesteps
from pysdk.errors import OptionError, OptionTypeError

PAIRS = [(1000, n) for n in (2, 3, 7, 10, 20, 27, 50, 99, 250, 333, 500, 600, 999, 1000)]
PAIRS += [(total, n) for total in (1, 2, 10, 17, 30, 64, 250) for n in range(1, total + 1)]
UNUSABLE = {("leading", 1), ("linspace", 1)}  # one step at timestep 0


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_spacings_are_those_of_diffusers(scheduler, spacing):
    compared = 0
    for total, steps in PAIRS:
        theirs = scheduler(num_train_timesteps=total, timestep_spacing=spacing)
        theirs.set_timesteps(steps)
        if (spacing, steps) in UNUSABLE and total > 1:
            assert theirs.timesteps.tolist() == [0]
            continue
        ours = make_timesteps(total, steps, spacing=spacing)
        assert len(ours) == steps
        expected = theirs.timesteps.numpy()
        if len(expected) == steps + 1:  # a rounding of "trailing" adds timestep -1 there
            assert (spacing, expected[-1]) == ("trailing", -1)
            expected = expected[:-1]
        np.testing.assert_array_equal(ours, expected, err_msg=f"{spacing} {total} {steps}")
        compared += 1
    assert compared > 300


@pytest.mark.parametrize("scheduler", [DDPMScheduler, DDIMScheduler])
@pytest.mark.parametrize("steps", [1, 7, 50, 600])
def test_steps_offset_is_that_of_diffusers(scheduler, steps):
    theirs = scheduler(steps_offset=1)
    theirs.set_timesteps(steps)
    np.testing.assert_array_equal(make_timesteps(1000, steps, steps_offset=1), theirs.timesteps.numpy())


@given(st.integers(1, 1000), st.data(), st.sampled_from(list(SPACINGS)))
def test_spaced_timesteps_descend_in_range(total, data, spacing):
    steps = data.draw(st.integers(1 if spacing == "trailing" or total == 1 else 2, total)) if total > 1 else 1
    timesteps = make_timesteps(total, steps, spacing=spacing)
    assert timesteps.dtype == np.int64
    assert timesteps.shape == (steps,)
    assert np.all(np.diff(timesteps) < 0)
    assert 0 <= timesteps[-1] <= timesteps[0] < total
    if spacing != "leading":
        assert timesteps[0] == total - 1
    if spacing != "trailing":
        assert timesteps[-1] == 0


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
def test_none_is_every_timestep(spacing):
    np.testing.assert_array_equal(make_timesteps(1000, spacing=spacing), np.arange(1000)[::-1])


def test_lists_are_taken_as_they_are():
    assert make_timesteps(1000, [999, 500, 0]).tolist() == [999, 500, 0]
    assert make_timesteps(1000, np.array([7])).tolist() == [7]
    assert make_timesteps(10, np.int64(10)).tolist() == list(range(10))[::-1]


def published_rule(total, counts):
    """`space_timesteps` of the iDDPM paper's code, from its description: equal sections, each strided to its count."""
    sizes = [total // len(counts) + (i < total % len(counts)) for i in range(len(counts))]
    taken, start = [], 0
    for size, count in zip(sizes, counts, strict=True):
        position = 0.0
        for _ in range(count):
            taken.append(start + round(position))
            position += (size - 1) / (count - 1) if count > 1 else 1
        start += size
    return taken[::-1]


@pytest.mark.parametrize(
    ("total", "rule"),
    [
        (300, "10,15,20"),
        (1000, "250"),
        (4000, "250"),
        (1000, "10,10,5"),
        (1000, "90,60,60,20,20"),
        (7, "3,1"),
        (5, "5"),
    ],
)
def test_respacing_strings(total, rule):
    timesteps = make_timesteps(total, rule)
    assert timesteps.tolist() == published_rule(total, [int(part) for part in rule.split(",")])
    assert np.all(np.diff(timesteps) < 0)


def test_respacing_by_hand():
    assert make_timesteps(300, "2,3,1").tolist() == [200, 199, 150, 100, 99, 0]
    assert make_timesteps(10, "4").tolist() == [9, 6, 3, 0]


def test_ddim_strings_are_one_integer_stride():
    assert make_timesteps(1000, "ddim50").tolist() == make_timesteps(1000, 50).tolist()
    assert make_timesteps(1000, "ddim7").tolist() == list(range(0, 1000, 143))[::-1]


@pytest.mark.parametrize(
    ("error", "steps", "options", "message"),
    [
        (OptionError, 0, {}, "steps is 0, expected 1 to 100"),
        (OptionError, -3, {}, "steps is -3"),
        (OptionError, 101, {}, "steps is 101, expected 1 to 100"),
        (OptionError, 1, {}, "use spacing='trailing'"),
        (OptionError, 1, {"spacing": "linspace"}, "use spacing='trailing'"),
        (OptionError, 10, {"spacing": "karras"}, "'karras'.*'leading'"),
        (OptionError, 100, {"steps_offset": 1}, "steps_offset is 1"),
        (OptionError, 10, {"steps_offset": -1}, "steps_offset is -1"),
        (
            OptionError,
            10,
            {"steps_offset": 10**20},
            "steps_offset is 100000000000000000000, expected a whole",
        ),
        (OptionError, 10, {"spacing": ["leading"]}, r"spacing is \['leading'\]"),
        (OptionError, 10, {"steps_offset": 1, "spacing": "trailing"}, "'trailing' has none"),
        (OptionTypeError, 10, {"steps_offset": 0.5}, r"steps_offset is 0\.5"),
        (OptionTypeError, 10.0, {}, r"steps is 10\.0"),
        (OptionTypeError, True, {}, "steps is True"),
        (OptionTypeError, [9.0, 1.0], {}, "integer timesteps"),
        (OptionTypeError, [[9], [1]], {}, "integer timesteps"),
        (OptionError, [], {}, "empty"),
        (OptionError, [1, 9], {}, "strictly descending"),
        (OptionError, [9, 9], {}, "strictly descending"),
        (OptionError, [100, 9], {}, "0 to 99"),
        (OptionError, [9, -1], {}, "0 to 99"),
        (OptionError, [9, 1], {"spacing": "leading"}, "leave out spacing"),
        (OptionError, "ddim10", {"steps_offset": 1}, "leave out spacing"),
        (OptionError, "ddim99", {}, "no integer stride takes 99 of 100"),
        (OptionError, "ddim0", {}, "no integer stride"),
        (OptionError, "ddim5,5", {}, "'ddimN'"),
        (OptionError, "fast", {}, "'ddimN'"),
        (OptionError, "", {}, "'ddimN'"),
        (OptionError, "10,,5", {}, "'ddimN'"),
        (OptionError, "9" * 5000, {}, "'ddimN'"),
        (OptionError, "10,0,5", {}, "section 1 has 33 timesteps, cannot take 0"),
        (OptionError, "10,10,34", {}, "section 2 has 33 timesteps, cannot take 34"),
    ],
)
def test_refused(error, steps, options, message):
    with pytest.raises(error, match=message):
        make_timesteps(100, steps, **options)
