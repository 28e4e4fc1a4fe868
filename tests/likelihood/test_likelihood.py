"""`Sampler.likelihood` against the papers in float64 torch, on both tiny networks; largest difference 1e-5 bits/dim."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from kit.in_torch import torch_bound
from kit.tiny_networks import TOY_SHAPE, multiplication, write_toy_plan
from numpy.typing import NDArray

from pysdk import Clip, Sampler, noise
from pysdk.cli.commands import pysdk
from pysdk.errors import DeadlineError, EngineError, MemoryLimitError, NumericalError, OptionError, OptionTypeError
from pysdk.likelihood import Likelihood
from pysdk.likelihood.terms import stratified
from pysdk.training.checkpoint import load_model

# bits/dim; relative because a discretised decoder far from its pixel has tens of bits
TOLERANCE = {"atol": 1e-5, "rtol": 1e-6}
FORWARD_DRAWS = 0xF0000000
SEED, START = 11, 5


def pictures(count: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Smooth pictures with both end levels in them, uint8 (N, H, W, C)."""
    channels, height, width = shape
    rng = np.random.default_rng(count)
    ramps = np.linspace(-80, 335, height * width).reshape(height, width, 1)
    return (ramps + rng.normal(0, 40, (count, height, width, channels))).clip(0, 255).astype(np.uint8)


def reference(
    sampler: Sampler, checkpoint: Path, images: NDArray[np.uint8], labels: NDArray[np.int64] | None, **options: object
) -> Likelihood:
    """The same bound from torch_bound, with the network in float64."""
    network = load_model(checkpoint)[1].double().eval()
    network.time_embed.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))  # made in float32
    info = sampler.plan.manifest.model
    timesteps = options.pop("timesteps")
    numbers = np.arange(START, START + len(images), dtype=np.uint64)

    def run(x: torch.Tensor, t: int) -> torch.Tensor:
        time = torch.full((len(x),), t)
        return network(x, time) if labels is None else network(x, time, torch.from_numpy(labels))

    with torch.inference_mode():
        parts = torch_bound.bound(
            run,
            sampler.schedule.betas.tolist(),
            timesteps,  # type: ignore[arg-type]
            torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.int64)),
            lambda t: torch.from_numpy(noise.normal(SEED, numbers, FORWARD_DRAWS + t, info.shape)),
            prediction_type=info.prediction_type,
            **options,  # type: ignore[arg-type]
        )
    prior, terms, errors = (part.numpy() for part in parts)
    return Likelihood(np.array(timesteps), np.ones(len(timesteps)), prior, terms, errors)


def assert_close(found: Likelihood, expected: Likelihood) -> None:
    assert np.array_equal(found.timesteps, expected.timesteps)
    np.testing.assert_allclose(found.prior, expected.prior, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.transitions, expected.transitions, **TOLERANCE)
    np.testing.assert_allclose(found.decoder, expected.decoder, **TOLERANCE)
    np.testing.assert_allclose(found.squared_error, expected.squared_error, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.per_image, expected.per_image, **TOLERANCE)


@pytest.mark.parametrize("variance", ["learned", "small"])
def test_network_of_two_outputs(conditional: Sampler, conditional_checkpoint: Path, variance: str) -> None:
    images = pictures(3, (1, 8, 8))
    labels = np.array([2, 0, 3])  # the last is the null label
    found = conditional.likelihood(images, labels=labels, seed=SEED, start=START, steps="ddim50", variance=variance)
    timesteps = range(980, -1, -20)
    options = {"variance": variance, "clip": 1.0, "timesteps": timesteps}
    assert_close(found, reference(conditional, conditional_checkpoint, images, labels, **options))
    assert found.terms.shape == (3, 50)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_fixed_variances_of_v_prediction(
    unconditional: Sampler, unconditional_checkpoint: Path, variance: str, clip: float | None
) -> None:
    images = pictures(6, (3, 8, 8))  # two batches, the second shorter
    native_clip = Clip.none() if clip is None else Clip.clamp(clip)
    found = unconditional.likelihood(images, seed=SEED, start=START, variance=variance, clip=native_clip)
    options = {"variance": variance, "clip": clip, "timesteps": range(99, -1, -1)}
    assert_close(found, reference(unconditional, unconditional_checkpoint, images, None, **options))


@pytest.mark.parametrize("steps", ["ddim10", [90, 40, 7]])
def test_respaced_process(unconditional: Sampler, unconditional_checkpoint: Path, steps: str | list[int]) -> None:
    images = pictures(2, (3, 8, 8))
    found = unconditional.likelihood(images, seed=SEED, start=START, steps=steps, variance="large")
    timesteps = range(90, -1, -10) if isinstance(steps, str) else steps
    options = {"variance": "large", "clip": 1.0, "timesteps": timesteps}
    assert_close(found, reference(unconditional, unconditional_checkpoint, images, None, **options))


def same(first: Likelihood, second: Likelihood) -> bool:
    names = ("timesteps", "weights", "prior", "terms", "squared_error")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def rows_of(whole: Likelihood, rows: slice) -> Likelihood:
    parts = (whole.prior[rows], whole.terms[rows], whole.squared_error[rows])
    return Likelihood(whole.timesteps, whole.weights, *parts)


def test_an_image_does_not_depend_on_its_batch(conditional_plan: Path, padded_plan: Path) -> None:
    images = pictures(7, (1, 8, 8))
    options = {"seed": 3, "steps": "ddim10", "terms": 6}
    with Sampler(conditional_plan, threads=1) as sampler:
        whole = sampler.likelihood(images, labels=1, **options)
        rest = sampler.likelihood(images[2:], labels=1, start=2, **options)
        assert same(rows_of(whole, slice(2, None)), rest)
        assert not np.array_equal(whole.terms[2:], sampler.likelihood(images[2:], labels=1, **options).terms)
    for plan, sizes in ((conditional_plan, {"batch_size": 3, "threads": 2}), (padded_plan, {"threads": 2})):
        with Sampler(plan, **sizes) as sampler:
            assert same(sampler.likelihood(images, labels=1, **options), whole)


def test_labels_matter(conditional: Sampler) -> None:
    images = pictures(2, (1, 8, 8))
    first, second = (conditional.likelihood(images, labels=label, steps="ddim10") for label in (0, [0, 2]))
    assert np.array_equal(first.terms[0], second.terms[0])
    assert not np.array_equal(first.terms[1], second.terms[1])


@pytest.mark.parametrize(("total", "count"), [(10, 2), (10, 5), (10, 10), (1000, 40), (2, 2), (1, 1)])
def test_every_term_counts_once_on_average(total: int, count: int) -> None:
    sums = np.zeros(total)
    repeats = 4000
    for seed in range(repeats):
        rows, weights = stratified(total, count, seed)
        assert rows[0] == 0
        assert (np.diff(rows) > 0).all()
        assert weights.sum() == total
        sums[rows] += weights
    # a term of a range of width w is seen with variance w - 1
    deviation = np.sqrt(total / repeats)
    assert np.abs(sums / repeats - 1).max() < 5 * deviation


def test_a_subset_is_an_unbiased_estimate(unconditional: Sampler) -> None:
    images = pictures(1, (3, 8, 8))
    whole = unconditional.likelihood(images, steps="ddim10")
    estimates = []
    for seed in range(60):
        part = unconditional.likelihood(images, steps="ddim10", terms=5, seed=seed)
        rows = np.searchsorted(-whole.timesteps, -part.timesteps)
        assert np.array_equal(whole.timesteps[rows], part.timesteps)
        if seed == 0:
            assert np.array_equal(whole.terms[:, rows], part.terms)
        estimates.append(whole.prior[0] + whole.terms[0, rows] @ part.weights)
    error = np.std(estimates, ddof=1) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - whole.bits_per_dim) < 4 * error
    everything = unconditional.likelihood(images, steps="ddim10", terms=10)
    assert same(everything, whole)


def test_value_range_is_honoured(tmp_path: Path) -> None:
    """A network of x / 2 on data in [0, 1], by the papers' formulas."""
    images = pictures(3, TOY_SHAPE)
    with Sampler(write_toy_plan(tmp_path / "toy.plan", value_range=(0.0, 1.0)), threads=1) as sampler:
        found = sampler.likelihood(images, seed=SEED, start=START, clip=Clip.none())
        numbers = np.arange(START, START + 3, dtype=np.uint64)
        parts = torch_bound.bound(
            lambda x, t: 0.5 * x,
            sampler.schedule.betas.tolist(),
            range(9, -1, -1),
            torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.int64)),
            lambda t: torch.from_numpy(noise.normal(SEED, numbers, FORWARD_DRAWS + t, TOY_SHAPE)),
            prediction_type="epsilon",
            variance="small",
            clip=None,
            value_range=(0.0, 1.0),
        )
    np.testing.assert_allclose(found.prior, parts[0], rtol=1e-10)
    np.testing.assert_allclose(found.terms, parts[1], rtol=1e-5)
    np.testing.assert_allclose(found.squared_error, parts[2], rtol=1e-5)


def test_summary_and_totals(conditional: Sampler) -> None:
    images = pictures(4, (1, 8, 8))
    found = conditional.likelihood(images, labels=0, steps="ddim10", terms=4)
    expected = found.prior + (found.terms * found.weights).sum(1)
    assert np.array_equal(found.per_image, expected)
    assert found.bits_per_dim == expected.mean()
    assert np.array_equal(np.column_stack([found.transitions, found.decoder]), found.terms)
    assert f"{expected.mean():.4f} bits/dim" in found.summary()
    assert "4 images, 4 of 10 terms" in found.summary()
    assert np.isnan(conditional.likelihood(images[:1], labels=0, steps="ddim10").standard_error)


def test_progress_counts_network_calls(conditional: Sampler) -> None:
    seen: list[tuple[int, int]] = []
    images = pictures(6, (1, 8, 8))
    conditional.likelihood(images, labels=0, steps="ddim10", progress=lambda *done: seen.append(done))
    assert seen[-1] == (20, 20)
    assert [total for _, total in seen] == [20] * len(seen)


def test_plan_with_one_step(unconditional: Sampler) -> None:
    found = unconditional.likelihood(pictures(2, (3, 8, 8)), steps=[50])
    assert found.transitions.shape == (2, 0)
    assert found.bits_per_dim > 0


def test_bad_arguments_are_refused(conditional: Sampler, unconditional: Sampler) -> None:
    images, colour = pictures(2, (1, 8, 8)), pictures(2, (3, 8, 8))
    cases: list[tuple[Sampler, object, dict[str, object], str]] = [
        (unconditional, colour.astype(np.float32), {}, "images are float32, expected a uint8 array"),
        (unconditional, colour.tolist(), {}, "images are list, expected a uint8 array"),
        (unconditional, images, {}, r"shape \(2, 8, 8, 1\), but .* needs \(N, 8, 8, 3\)"),
        (unconditional, colour[0], {}, r"needs \(N, 8, 8, 3\)"),
        (unconditional, colour[:0], {}, "there are 0 images"),
        (unconditional, colour, {"labels": 1}, "has no classes"),
        (conditional, images, {}, "labels are missing: .* 3 classes; give the class of each image, or 3 for no class"),
        (conditional, images, {"labels": [0, 4]}, "labels hold 4"),
        (unconditional, colour, {"variance": "learned"}, "has no learned variance; use 'small' or 'large'"),
        (unconditional, colour, {"variance": "tiny"}, "variance is 'tiny', expected one of"),
        (unconditional, colour, {"variance": ["small"]}, r"variance is \['small'\], expected one of"),
        (unconditional, colour, {"terms": 1}, "terms is 1, expected a whole number from 2 to 100"),
        (unconditional, colour, {"terms": 101}, "terms is 101"),
        (unconditional, colour, {"terms": 2.5}, "terms is 2.5"),
        (unconditional, colour, {"steps": 101}, "101"),
        (unconditional, colour, {"seed": -1}, "seed is -1"),
        (unconditional, colour, {"start": -1}, "start is -1"),
        (unconditional, colour, {"clip": Clip.dynamic(0.9)}, "not made for a dynamic threshold"),
        (unconditional, colour, {"clip": 1.0}, "clip is 1.0, expected Clip.clamp"),
        (unconditional, colour, {"eta": 1.0}, "likelihood has no option 'eta'"),
    ]
    for sampler, given, options, message in cases:
        with pytest.raises((OptionError, OptionTypeError), match=message):
            sampler.likelihood(given, **options)  # type: ignore[arg-type]


def test_diverging_network_is_named(tmp_path: Path) -> None:
    network = multiplication(float("inf"))
    with (
        Sampler(write_toy_plan(tmp_path / "toy.plan", network), threads=1) as sampler,
        pytest.raises(NumericalError, match="timestep 9 of image 0 is NaN or infinite"),
    ):
        sampler.likelihood(pictures(2, TOY_SHAPE), clip=Clip.none())


def test_closed_sampler(tmp_path: Path) -> None:
    with Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1) as sampler:
        pass
    with pytest.raises(EngineError, match="closed"):
        sampler.likelihood(pictures(2, TOY_SHAPE))


def test_memory_is_counted_before_it_is_taken(conditional_plan: Path) -> None:
    images = np.zeros((512, 8, 8, 1), np.uint8)
    ask = {"labels": 0, "steps": [500, 0]}
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=8) as sampler:
        loaded = sampler.info["running"]["memory"]
        expected = sampler.likelihood(images[:8], **ask)
        assert sampler.info["running"]["memory"] == loaded  # given back
    with Sampler(
        conditional_plan, engine="native", threads=1, batch_size=512, max_memory=loaded + 4_000_000
    ) as sampler:
        with pytest.raises(
            MemoryLimitError, match=r"^the bound of 512 images needs [0-9,]+ bytes .* smaller batch_size"
        ):
            sampler.likelihood(images, **ask)
        with pytest.raises(MemoryLimitError, match=r"^512 images in 1000 terms need [0-9,]+ bytes"):
            sampler.likelihood(images, labels=0)
        assert sampler.info["running"]["memory"] == loaded
        assert sampler.likelihood(images[:8], **ask).bits_per_dim == expected.bits_per_dim


def test_idle_chains_make_room(conditional_plan: Path) -> None:
    with Sampler(conditional_plan, engine="native", threads=1, batch_size=64) as sampler:
        loaded = sampler.info["running"]["memory"]
        sampler.sample(64, steps=2)
        one = sampler.info["running"]["memory"] - loaded
    with Sampler(
        conditional_plan, engine="native", threads=1, batch_size=64, max_memory=loaded + one + one // 2
    ) as sampler:
        sampler.sample(64, steps=2)
        sampler.likelihood(np.zeros((64, 8, 8, 1), np.uint8), labels=0, steps=[500, 0])
        assert sampler.info["running"]["memory"] == loaded


def test_a_deadline_says_how_far_it_came(tmp_path: Path) -> None:
    def linger(done: int, total: int) -> None:
        if done == 10:  # the first batch's rows
            time.sleep(1.1)

    with (
        Sampler(write_toy_plan(tmp_path / "toy.plan"), threads=1) as sampler,
        pytest.raises(
            DeadlineError, match=r"^the deadline of 1 s is over: 4 of 6 images were done, the next were at row 0 of 10;"
        ),
    ):
        sampler.likelihood(pictures(6, TOY_SHAPE), deadline=1, progress=linger)


def test_a_deadline_on_the_command_line(conditional_plan: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    for command in (["likelihood"], ["compression", "-o", str(tmp_path / "a.csv")]):
        command += [str(conditional_plan), "--data", str(tmp_path / "a.npz"), "-n", "2", "--label", "0"]
        with pytest.raises(DeadlineError, match=r"^the deadline of 1e-09 s is over"):
            pysdk.main([*command, "--deadline", "1e-9"], standalone_mode=False)
