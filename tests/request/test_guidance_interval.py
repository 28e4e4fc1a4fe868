"""Guidance in an interval of timesteps: the weights of the paper, and half the work outside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.in_torch import torch_reference

from pysdk import Sampler
from pysdk.errors import OptionError, OptionTypeError
from pysdk.noise import normal
from pysdk.training.checkpoint import load_model

SCALES = [3.0, 0.0, 1.0, -0.5, 2.0]
GUIDED: dict[str, Any] = {"steps": 20, "guidance_scale": SCALES, "output": "float32"}


def test_the_weight_is_1_outside(conditional: Sampler, conditional_checkpoint: Path) -> None:
    network = load_model(conditional_checkpoint)[1]
    labels = torch.arange(5) % 3

    def call(x: torch.Tensor, t: int, label: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = network(x, torch.tensor([float(t)]), label)
        return out

    def run(x: torch.Tensor, t: int) -> torch.Tensor:
        weight = torch.tensor(SCALES) if 200 <= t <= 600 else torch.ones(5)
        return torch_reference.guided(call, labels, 3, weight)(x, t)[:, :1]

    images = conditional.sample(5, solver="ddpm", variance="large", guidance_interval=(200, 600), **GUIDED)
    with torch.inference_mode():
        expected = torch_reference.ddpm(
            run,
            conditional.schedule.betas.tolist(),
            range(950, -1, -50),
            lambda draw: torch.from_numpy(normal(0, np.arange(5), draw, (1, 8, 8))),
            variance="large",
            clip=1.0,
        )
    np.testing.assert_allclose(images, expected.numpy(), rtol=0, atol=1e-5)


def test_an_interval_of_everything_changes_nothing(conditional: Sampler) -> None:
    whole = conditional.sample(5, **GUIDED)
    np.testing.assert_array_equal(conditional.sample(5, guidance_interval=(0, 950), **GUIDED), whole)
    part = conditional.sample(5, guidance_interval=(50, 950), **GUIDED)
    assert not np.array_equal(part, whole)
    np.testing.assert_array_equal(part[2], whole[2])  # its scale is 1


@pytest.mark.parametrize("batch_size", [2, 6])
def test_any_batch_size(conditional: Sampler, conditional_plan: Path, batch_size: int) -> None:
    options = {"guidance_interval": (100, 500), **GUIDED}
    with Sampler(conditional_plan, threads=1, batch_size=batch_size) as sampler:
        np.testing.assert_array_equal(sampler.sample(5, **options), conditional.sample(5, **options))


def test_outside_only_the_conditional_half_is_run(conditional: Sampler, padded_plan: Path) -> None:
    """Where the engine allows it; the padded plan's does not, and the images are the same."""
    sizes: list[int] = []

    class Spy:
        description = "spy"

        def bind(self, buffers: Any) -> Any:
            call, size = engine.bind(buffers), len(buffers.network_input)

            def counted() -> None:
                sizes.append(size)
                call()

            return counted

    images = []
    for sampler in (conditional, Sampler(padded_plan, threads=1)):
        engine = sampler._executor.engine
        sampler._executor.engine = Spy()
        sampler._executor._idle.clear()
        images.append(sampler.sample(2, steps=4, guidance_scale=2.0, guidance_interval=(500, 500)))
        sampler._executor.engine = engine
        sampler._executor._idle.clear()
    assert sizes == [2, 4, 2, 2] + [4] * 4
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (OptionError, {"guidance_interval": (0, 500)}, r"guidance_interval is \(0, 500\), but nothing guides"),
        (OptionError, {"guidance_interval": (0, 500), "guidance_scale": 1.0}, "but nothing guides"),
        (OptionError, {"guidance_interval": (500, 0), "guidance_scale": 2.0}, "expected the lower timestep first"),
        (OptionError, {"guidance_interval": (1, 9), "guidance_scale": 2.0}, "no step is at a timestep in it"),
        (OptionError, {"guidance_interval": (0, float("nan")), "guidance_scale": 2.0}, "the lower timestep first"),
        (OptionTypeError, {"guidance_interval": 500, "guidance_scale": 2.0}, "expected a pair of timesteps"),
        (OptionTypeError, {"guidance_interval": (1, 2, 3), "guidance_scale": 2.0}, "expected a pair of timesteps"),
    ],
)
def test_refusals(conditional: Sampler, error: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(error, match=message):
        conditional.sample(2, steps=10, **options)
