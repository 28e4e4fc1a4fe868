"""Classifier guidance: the gradient as a graph, and whole chains against ADM's Algorithm 2 with autograd in torch."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.in_torch import torch_reference
from kit.noisy_classifier import TinyClassifier, tiny_classifier
from kit.twin import network_of, twin
from torch import nn

from pysdk import Plan, Sampler
from pysdk.errors import ExportError, OptionError
from pysdk.export.classifier.adding import add_classifier
from pysdk.export.classifier.gradient import export_gradient, log_probability_gradient
from pysdk.noise import normal
from pysdk.request.request import make_request
from pysdk.training.checkpoint import load_model

pytestmark = pytest.mark.slow

SCALES = [0.2, 0.0, 0.5, -0.1, 0.05]


@pytest.fixture(scope="module")
def classifier() -> TinyClassifier:
    return tiny_classifier(1, 3)


@pytest.fixture(scope="module")
def plan(conditional_plan: Path, classifier: TinyClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "engine.plan"
    add_classifier(conditional_plan, classifier, 3, out=path, name="tiny classifier", progress=False)
    return path


@pytest.fixture(scope="module")
def guided(plan: Path) -> Iterator[Sampler]:
    with Sampler(plan, threads=1) as sampler:
        yield sampler


def in_torch(
    sampler: Sampler,
    checkpoint: Path,
    classifier: nn.Module,
    solver: str,
    interval: tuple[int, int] = (0, 999),
    **options: Any,
) -> np.ndarray:
    """eps - sqrt(1 - abar) scale grad log p(label | x) in the papers' samplers, 20 steps."""
    network, labels, scales = load_model(checkpoint)[1], torch.arange(5) % 3, torch.tensor(SCALES)
    abar = sampler.schedule.alphas_cumprod

    def run(x: torch.Tensor, t: int) -> torch.Tensor:
        time = torch.tensor([float(t)])
        with torch.no_grad():
            out: torch.Tensor = network(x.float(), time, labels)
        if interval[0] <= t <= interval[1]:
            gradient = log_probability_gradient(classifier, x.float(), time, labels)
            out[:, :1] -= math.sqrt(1 - abar[t]) * scales[:, None, None, None] * gradient
        return out if options.get("variance") == "learned" else out[:, :1]

    def noise(draw: int) -> torch.Tensor:
        return torch.from_numpy(normal(0, np.arange(5), draw, (1, 8, 8)))

    function = {"ddpm": torch_reference.ddpm, "ddim": torch_reference.ddim}[solver]
    return function(run, sampler.schedule.betas.tolist(), range(950, -1, -50), noise, clip=1.0, **options).numpy()


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("ddim", {"eta": 0.0}),
        ("ddim", {"eta": 1.0}),
        ("ddpm", {"variance": "large"}),
        ("ddpm", {"variance": "learned"}),
    ],
)
def test_20_steps_are_those_of_torch(
    guided: Sampler, conditional_checkpoint: Path, classifier: TinyClassifier, solver: str, options: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"steps": 20, "solver": solver, "output": "float32", **options}
    images = guided.sample(5, classifier_scale=SCALES, **asked)
    expected = in_torch(guided, conditional_checkpoint, classifier, solver, **options)
    np.testing.assert_allclose(images, expected, rtol=0, atol=5e-4 if options.get("eta") == 0.0 else 2e-5)
    plain = guided.sample(5, **asked)
    np.testing.assert_array_equal(images[1], plain[1])  # its scale is 0
    assert all(np.abs(images[i] - plain[i]).max() > 2e-3 for i in (0, 2, 3, 4))


def test_an_interval(guided: Sampler, conditional_checkpoint: Path, classifier: TinyClassifier) -> None:
    images = guided.sample(
        5, steps=20, solver="ddim", eta=1.0, classifier_scale=SCALES, guidance_interval=(100, 600), output="float32"
    )
    expected = in_torch(guided, conditional_checkpoint, classifier, "ddim", (100, 600), eta=1.0)
    np.testing.assert_allclose(images, expected, rtol=0, atol=2e-5)


BOTH: dict[str, Any] = {
    "steps": 8, "guidance_scale": [2.0, 1.0, 0.0, 3.0, 1.5], "classifier_scale": SCALES, "output": "float32",
    "guidance_interval": (200, 800), "labels": [2, 1, 0, 0, 1], "seed": 5,
}  # fmt: skip


def test_both_kinds_together_have_the_bits_of_the_numpy_twin(guided: Sampler) -> None:
    arguments = {name: value for name, value in BOTH.items() if name != "output"}
    request = make_request(guided.plan.manifest, guided.schedule, 5, solver="ddpm", variance="learned", **arguments)
    np.testing.assert_array_equal(guided.sample(5, solver="ddpm", variance="learned", **BOTH), twin(guided, request))


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_any_batch_size(guided: Sampler, plan: Path, batch_size: int) -> None:
    expected = guided.sample(5, **BOTH)
    with Sampler(plan, threads=2, batch_size=batch_size) as sampler:
        np.testing.assert_array_equal(sampler.sample(5, **BOTH), expected)
    alone = {k: v[3] if isinstance(v, list) else v for k, v in BOTH.items()}
    np.testing.assert_array_equal(guided.sample(1, start=3, **alone)[0], expected[3])


def test_a_classifier_gives_classes_to_a_network_without(
    unconditional_plan: Path, tmp_path: Path, unconditional: Sampler
) -> None:
    torch.manual_seed(0)
    classifier = WithoutTime(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    add_classifier(unconditional_plan, classifier, 4, out=tmp_path / "a.plan", progress=False)
    with Sampler(tmp_path / "a.plan", threads=1) as sampler:
        plain = sampler.sample(4, steps=10)
        np.testing.assert_array_equal(plain, unconditional.sample(4, steps=10))
        images = sampler.sample(4, steps=10, classifier_scale=10.0, labels=[0, 1, 2, 3], output="float32")
        same = sampler.sample(4, steps=10, classifier_scale=10.0, output="float32")  # one class after the other
        np.testing.assert_array_equal(images, same)
        clean = torch.zeros(1)
        before = sampler.sample(4, steps=10, output="float32")
        with torch.no_grad():
            p = [classifier(torch.from_numpy(x), clean).softmax(1)[range(4), range(4)].mean() for x in (before, images)]
        assert p[1] > p[0]
        with pytest.raises(OptionError, match="labels hold 4, expected classes from 0 to 3"):
            sampler.sample(1, classifier_scale=1.0, labels=4)
        with pytest.raises(OptionError, match="labels were given, but 'tiny' has no classes"):
            sampler.sample(1, labels=1)
        given = np.zeros((1, 8, 8, 3), np.uint8)
        with pytest.raises(OptionError, match="classifier_scale is given without labels"):
            sampler.image_to_image(given, classifier_scale=1.0)
        sampler.inpaint(given, np.eye(8), steps=4, jump_n_sample=1, classifier_scale=1.0, labels=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classifier_scale": float("nan")}, "classifier_scale is nan, expected finite numbers"),
        ({"classifier_scale": [1.0]}, r"classifier_scale has shape \(1,\)"),
        ({"classifier_scale": 1.0, "labels": 3}, "labels hold 3, expected classes from 0 to 2$"),
    ],
)
def test_refusals(guided: Sampler, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        guided.sample(2, **options)


def test_a_plan_without_one(conditional: Sampler) -> None:
    with pytest.raises(
        OptionError, match=r"classifier_scale is 1\.0, but the plan of 'tiny' holds no classifier; add one"
    ):
        conditional.sample(1, classifier_scale=1.0)
    np.testing.assert_array_equal(conditional.sample(1, steps=2, classifier_scale=0), conditional.sample(1, steps=2))


# Export.


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_graph_is_the_gradient_of_autograd(guided: Sampler, classifier: TinyClassifier, batch: int) -> None:
    rng = np.random.default_rng(batch)
    x, labels = rng.normal(size=(batch, 1, 8, 8)).astype(np.float32), rng.integers(0, 3, batch)
    got = network_of(guided._executor.classifier, (1, 8, 8))(x, np.float32(300), labels)
    expected = log_probability_gradient(
        classifier, torch.from_numpy(x), torch.tensor([300.0]), torch.from_numpy(labels)
    )
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=5e-6 * expected.abs().max().item())


def test_the_plan_says_what_it_holds(plan: Path, conditional_plan: Path) -> None:
    with Plan.open(plan) as opened, Plan.open(conditional_plan) as before:
        described = opened.manifest.classifier
        assert described is not None
        assert (described.name, described.num_classes, described.batch_invariant) == ("tiny classifier", 3, True)
        assert 0 < described.max_abs_error < 1e-5
        assert opened.member("network.onnx") == before.member("network.onnx")
        assert "guidance  classifier tiny classifier, 3 classes" in opened.summary()
        opened.verify()


def test_what_cannot_be_added(conditional_plan: Path, classifier: TinyClassifier, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"returns \(5, 3\) for 5 images, expected \(5, 4\)"):
        export_gradient(classifier, (1, 8, 8), 4)
    out = tmp_path / "out.plan"
    with pytest.raises(OptionError, match="the classifier has 4 classes, expected those of the model, 3"):
        add_classifier(conditional_plan, tiny_classifier(1, 4), 4, out=out, progress=False)
    overlapping = nn.Sequential(nn.AvgPool2d(3, 1), nn.Flatten(), nn.Linear(36, 3))
    with pytest.raises(ExportError, match="cannot be lowered: average pooling can have a gradient if its tiles"):
        export_gradient(WithoutTime(overlapping), (1, 8, 8), 3)
    assert not out.exists()


class WithoutTime(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.module(x)
        return logits


def test_a_manifest_whose_classifier_is_missing(plan: Path, tmp_path: Path) -> None:
    from pysdk.plan.writer import write_plan

    with (
        Plan.open(plan) as opened,
        pytest.raises(OptionError, match=r"classifier\.member is 'classifier.onnx', expected"),
    ):
        write_plan(tmp_path / "x.plan", opened.manifest, {"network.onnx": opened.member("network.onnx")})
