"""Sampler: whole chains against the papers' samplers with the same network in torch, and what goes in and comes out."""

import copy
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.in_torch import torch_reference

from pysdk import Clip, Images, Plan, Sampler, StepTable
from pysdk.errors import OptionTypeError
from pysdk.images import to_uint8
from pysdk.noise import normal
from pysdk.solvers import make_table
from pysdk.training.checkpoint import load_model
from pysdk.training.unet import UNet

# ONNX Runtime and torch differ by 2e-7 in a call of these networks; images are in [-1, 1]. Fresh noise makes a chain
# forget such errors, DDIM without any amplifies them.
TOLERANCE = 1e-5
TOLERANCE_WITHOUT_NOISE = 5e-4
NULL_LABEL = 3


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def network(conditional_checkpoint: Path) -> UNet:
    return load_model(conditional_checkpoint)[1]


def in_torch(
    sampler: Sampler, network: UNet, n: int, steps: int, solver: str, scales: Any, **options: Any
) -> np.ndarray:
    """Images 0 .. n - 1 of seed 0, of classes 0, 1, 2, 0, ..., by the equations of the papers."""
    size = len(sampler.schedule) // steps
    timesteps = range((steps - 1) * size, -1, -size)
    labels = torch.arange(n) % 3

    def call(x: torch.Tensor, t: int, label: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = network(x, torch.tensor([float(t)]), label)
        return out if options.get("variance") == "learned" else out[:, :1]

    def noise(draw: int) -> torch.Tensor:
        return torch.from_numpy(normal(0, np.arange(n), draw, (1, 8, 8)))

    run = torch_reference.guided(
        call, labels, NULL_LABEL, torch.tensor(np.broadcast_to(scales, n), dtype=torch.float32)
    )
    if scales == 1.0:
        run = lambda x, t: call(x, t, labels)  # noqa: E731
    reference = {"ddpm": torch_reference.ddpm, "ddim": torch_reference.ddim}[solver]
    return reference(run, sampler.schedule.betas.tolist(), timesteps, noise, clip=1.0, **options).numpy()


@pytest.mark.parametrize("scales", [1.0, 3.0, [1.0, 0.0, 3.0, -0.5, 1.5]], ids=["plain", "guided", "per image"])
@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("ddpm", {"variance": "small"}),
        ("ddpm", {"variance": "large"}),
        ("ddpm", {"variance": "learned"}),
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 1.0}),
    ],
)
def test_50_steps_are_those_of_torch(
    conditional: Sampler, network: UNet, solver: str, options: dict[str, Any], scales: Any
) -> None:
    images = conditional.sample(5, steps=50, solver=solver, guidance_scale=scales, output="float32", **options)
    expected = in_torch(conditional, network, 5, 50, solver, scales, **options)
    assert expected.std() > 0.1
    tolerance = TOLERANCE_WITHOUT_NOISE if options.get("eta") == 0.0 else TOLERANCE
    np.testing.assert_allclose(images, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("change", [{"guidance_scale": 1.02}, {"labels": [0, 1, 2, 0, 2]}, {"variance": "small"}])
def test_the_comparison_can_fail(conditional: Sampler, network: UNet, change: dict[str, Any]) -> None:
    expected = in_torch(conditional, network, 5, 50, "ddpm", 1.0, variance="learned")
    images = conditional.sample(5, steps=50, output="float32", **{"solver": "ddpm", **change})
    assert np.abs(images - expected).max() > 4 * TOLERANCE


@pytest.mark.slow
def test_1000_steps_are_those_of_torch(conditional: Sampler, network: UNet) -> None:
    images = conditional.sample(2, solver="ddpm", output="float32")
    expected = in_torch(conditional, network, 2, 1000, "ddpm", 1.0, variance="learned")
    np.testing.assert_allclose(images, expected, rtol=0, atol=TOLERANCE)


def test_the_other_network_and_schedule(unconditional: Sampler, unconditional_checkpoint: Path) -> None:
    """Colour, v-prediction and the cosine schedule: v = N-weighted noise, read back as noise for the reference."""
    network, abar = load_model(unconditional_checkpoint)[1], unconditional.schedule.alphas_cumprod

    def epsilon(x: torch.Tensor, t: int) -> torch.Tensor:
        v = network(x, torch.tensor([float(t)]))
        return float(np.sqrt(abar[t])) * v + float(np.sqrt(1 - abar[t])) * x

    def noise(draw: int) -> torch.Tensor:
        return torch.from_numpy(normal(7, np.arange(3), draw, (3, 8, 8)))

    images = unconditional.sample(3, seed=7, steps=50, solver="ddim", eta=1.0, output="float32")
    betas = unconditional.schedule.betas.tolist()
    expected = torch_reference.ddim(epsilon, betas, range(98, -1, -2), noise, eta=1.0, clip=1.0)
    np.testing.assert_allclose(images, expected, rtol=0, atol=TOLERANCE)


# What comes out.


def test_kinds_of_output(conditional: Sampler, unconditional: Sampler) -> None:
    floats = unconditional.sample(3, steps=4, output="float32")
    assert (floats.dtype, floats.shape) == (np.float32, (3, 3, 8, 8))
    images = unconditional.sample(3, steps=4)
    assert isinstance(images, Images)
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(images, to_uint8(floats))
    pictures = unconditional.sample(3, steps=4, output="pil")
    assert [picture.mode for picture in pictures] == ["RGB"] * 3
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), images)
    assert conditional.sample(1, steps=2, output="pil")[0].mode == "L"


@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_dlpack_hands_over_the_same_memory(unconditional: Sampler, output: Any) -> None:
    images = unconditional.sample(2, steps=2, output=output)
    tensor = torch.from_dlpack(images)
    assert tensor.data_ptr() == images.ctypes.data
    assert tuple(tensor.shape) == images.shape


def test_results_are_the_callers(conditional: Sampler) -> None:
    first = conditional.sample(2, steps=2, output="float32")
    kept = first.copy()
    conditional.sample(2, steps=2, seed=1)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    np.testing.assert_array_equal(conditional.sample(2, steps=2, output="float32"), kept)


@pytest.mark.parametrize(("output", "shape"), [("uint8", (0, 8, 8, 3)), ("float32", (0, 3, 8, 8)), ("pil", None)])
def test_no_images_are_a_result_too(unconditional: Sampler, output: Any, shape: Any) -> None:
    images = unconditional.sample(0, output=output)
    assert images == [] if shape is None else images.shape == shape


# What goes in.


def test_defaults_are_those_of_the_plan(conditional: Sampler) -> None:
    defaults = conditional.plan.manifest.defaults
    assert (defaults.solver, defaults.steps) == ("ddim", 50)
    np.testing.assert_array_equal(conditional.sample(2), conditional.sample(2, solver="ddim", steps=50, eta=0.0))
    assert conditional.sample().shape == (64, 8, 8, 1)


def test_labels(conditional: Sampler) -> None:
    def sample(labels: Any, start: int = 0) -> np.ndarray:
        return conditional.sample(4, steps=3, start=start, labels=labels)

    cycled = sample(None)
    np.testing.assert_array_equal(cycled, sample([0, 1, 2, 0]))
    np.testing.assert_array_equal(sample(None, start=1), sample(np.array([1, 2, 0, 1], np.uint8), start=1))
    np.testing.assert_array_equal(sample(2), sample([2] * 4))
    null = sample(NULL_LABEL)
    np.testing.assert_array_equal(null, conditional.sample(4, steps=3, labels=1, guidance_scale=0.0))
    different = [cycled, sample(1), sample(2), null]
    assert all(not np.array_equal(a, b) for i, a in enumerate(different) for b in different[:i])


def test_a_seed_for_each_image(conditional: Sampler) -> None:
    seeds = [9, 0, 2**64 - 1, 9]
    together = conditional.sample(4, seed=seeds, start=5, steps=3)
    for index, seed in enumerate(seeds):
        alone = conditional.sample(1, seed=seed, start=5 + index, steps=3)
        np.testing.assert_array_equal(together[index], alone[0])
    assert len({image.tobytes() for image in together}) == 4
    np.testing.assert_array_equal(conditional.sample(4, seed=np.array(seeds, np.uint64), start=5, steps=3), together)


@pytest.mark.parametrize("n", [3, 5], ids=["one batch", "two batches"])
@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_own_noise_given_back_changes_nothing(conditional: Sampler, solver: str, n: int) -> None:
    expected = conditional.sample(n, seed=4, start=2, steps=6, solver=solver, output="float32")
    draws = np.stack([normal(4, np.arange(2, 2 + n), draw, (1, 8, 8)) for draw in range(7)])
    asked: list[tuple[int, list[int]]] = []

    def noise(draw: int, images: np.ndarray) -> np.ndarray:
        asked.append((draw, images.tolist()))
        return draws[draw, (images - 2).astype(int)]

    for source in (draws, draws[:, ::-1][:, ::-1], noise):
        found = conditional.sample(n, start=2, labels=np.arange(2, 2 + n) % 3, steps=6, solver=solver, noise=source,
                                   output="float32")  # fmt: skip
        np.testing.assert_array_equal(found, expected)
    draws_used = range(6) if solver == "ddpm" else range(1)  # z of the last row is not used
    batches = [list(range(2, 2 + n))[i : i + 4] for i in range(0, n, 4)]
    assert asked == [(draw, batch) for batch in batches for draw in draws_used]


def test_a_start_of_ones_own(conditional: Sampler) -> None:
    x = normal(0, np.arange(5), 0, (1, 8, 8))
    expected = conditional.sample(5, steps=4, solver="ddpm")
    np.testing.assert_array_equal(conditional.sample(5, steps=4, solver="ddpm", initial=x), expected)
    strided = np.repeat(x, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(conditional.sample(5, steps=4, solver="ddpm", initial=strided), expected)
    assert not np.array_equal(conditional.sample(5, steps=4, solver="ddpm", initial=np.zeros_like(x)), expected)


def test_a_table_of_ones_own(conditional: Sampler) -> None:
    table = make_table("ddim", conditional.schedule, steps=[900, 300, 20], eta=0.5)
    named = conditional.sample(3, solver="ddim", steps=[900, 300, 20], eta=0.5)
    np.testing.assert_array_equal(conditional.sample(3, solver=table), named)
    rows = StepTable.from_columns(t=[10.0], b=1.0, p=0.5, clip=Clip.clamp(0.25), init_scale=2.0)
    expected = np.clip(normal(0, np.arange(3), 0, (1, 8, 8)), -0.25, 0.25)
    np.testing.assert_array_equal(conditional.sample(3, solver=rows, output="float32"), expected)


def test_ways_to_say_which_steps(conditional: Sampler) -> None:
    by_list = conditional.sample(2, steps=[750, 500, 250, 0])
    np.testing.assert_array_equal(conditional.sample(2, steps=4), by_list)
    np.testing.assert_array_equal(conditional.sample(2, steps="ddim4"), by_list)
    np.testing.assert_array_equal(conditional.sample(2, steps=np.array([750, 500, 250, 0])), by_list)
    trailing = conditional.sample(2, steps=4, spacing="trailing")
    np.testing.assert_array_equal(conditional.sample(2, steps=[999, 749, 499, 249]), trailing)


@pytest.mark.parametrize("n", [1, 9])
def test_progress_counts_network_calls(conditional: Sampler, n: int) -> None:
    told: list[tuple[int, int]] = []
    images = conditional.sample(n, steps=30, progress=lambda done, total: told.append((done, total)))
    total = 30 * -(-n // 4)
    counts = [done for done, _ in told]
    assert counts == sorted(set(counts))
    assert counts[-1] == total
    assert {found for _, found in told} == {total}
    np.testing.assert_array_equal(images, conditional.sample(n, steps=30, progress=False))


def test_progress_bar_is_shown_when_asked_for(conditional: Sampler, capsys: pytest.CaptureFixture[str]) -> None:
    conditional.sample(1, steps=3, progress=False)
    conditional.sample(1, steps=3)  # no terminal here
    assert capsys.readouterr().err == ""
    conditional.sample(1, steps=3, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_a_plan_handed_in_stays_open(conditional_plan: Path) -> None:
    with Plan.open(conditional_plan) as plan:
        with Sampler(plan, threads=1) as sampler:
            first = sampler.sample(1, steps=2)
        with Sampler(plan, threads=1) as again:
            np.testing.assert_array_equal(again.sample(1, steps=2), first)


FORKED = """
import os, sys
import numpy as np
from pysdk import Sampler
from pysdk.errors import EngineError
sampler = Sampler(sys.argv[1], threads=2)
sampler.sample(2, steps=2)
child = os.fork()
if child:
    sampler.sample(2, steps=2)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
refused = 0
likelihood = lambda n, steps: sampler.likelihood(np.zeros((n, 8, 8, 1), np.uint8), labels=0, steps=steps)
for call in (sampler.sample, lambda *a, **k: list(sampler.stream(*a, **k)), likelihood):
    try:
        call(2, steps=2)
    except EngineError as error:
        refused += "make the Sampler in the child" in str(error)
with Sampler(sys.argv[1], threads=2) as own:
    refused += own.sample(2, steps=2).shape == (2, 8, 8, 1)
os._exit(7 if refused == 4 else 1)
"""


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_samplers_and_plans_are_not_copied(unconditional: Sampler, copied: Any) -> None:
    with pytest.raises(OptionTypeError, match="a sampler cannot be pickled or copied; pass the plan's path"):
        copied(unconditional)
    with pytest.raises(OptionTypeError, match=r"plan .* cannot be pickled or copied; pass its path"):
        copied(unconditional.plan)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_refused_instead_of_waiting_for_ever(conditional_plan: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, conditional_plan], timeout=60, check=False)
    assert done.returncode == 7
