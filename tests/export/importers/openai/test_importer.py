"""Checkpoints of improved-diffusion and guided-diffusion against what OpenAI's own code made of the same weights."""

import dataclasses
import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.importers.openai_weights import IMAGES, LABELS, SEED, Golden

from pysdk import Sampler, _native
from pysdk.errors import CheckpointError, OptionError
from pysdk.export.build import build
from pysdk.export.classifier.openai import load_classifier
from pysdk.export.importers import load_network
from pysdk.export.importers.openai.flags import parse_flags
from pysdk.export.importers.openai.model import make_schedule
from pysdk.noise import normal
from pysdk.plan.manifest import Manifest
from pysdk.request.solver_table import resolve_table
from pysdk.training.unet import UNet, UNetConfig

CASES = ("improved", "improved_ddim", "guided", "guided_xstart")

PER_CALL = 1e-5
"""Largest error of one call, relative to the largest output."""

WHOLE_CHAIN = 1e-4
"""Largest error of a chain's end, in [-1, 1]."""


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def golden(request, tmp_path):
    return Golden(request.param, tmp_path)


@pytest.fixture
def guided(tmp_path):
    return Golden("guided", tmp_path)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# The same numbers.


@pytest.mark.parametrize("golden", CASES, indirect=True)
def test_one_call(golden):
    network = load_network(str(golden.path), golden.flags)
    x = torch.from_numpy(normal(SEED, IMAGES, 0, network.model.shape))
    labels = () if network.model.num_classes is None else (torch.from_numpy(LABELS),)
    for t, expected in zip(golden.times, golden.calls, strict=True):
        found = network.module(x, torch.tensor([float(t)]), *labels)
        assert relative(found.numpy(), expected) <= PER_CALL


@pytest.mark.parametrize("golden", CASES, indirect=True)
def test_whole_chain(golden):
    """The chain with the plan's defaults and the network in torch; one case below goes through a built plan."""
    network = load_network(str(golden.path), golden.flags)
    found = in_native_chain(network)
    assert (np.abs(golden.end) < 0.99).mean() > 0.05  # an end that is all clipped would prove nothing
    np.testing.assert_allclose(found, golden.end, rtol=0, atol=WHOLE_CHAIN)


@pytest.mark.parametrize(
    ("golden", "changes"),
    [
        ("improved", {"steps": 20}),
        ("improved_ddim", {"options": {}}),
        ("guided", {"steps": "20"}),
        ("guided_xstart", {"options": {"variance": "small"}}),
    ],
    indirect=["golden"],
)
def test_wrong_defaults_are_seen(golden, changes):
    """The comparison can fail: even spacing, noise from the unclipped estimate, one section, the other variance."""
    network = load_network(str(golden.path), golden.flags)
    wrong = dataclasses.replace(network, defaults=msgspec.structs.replace(network.defaults, **changes))
    assert np.abs(in_native_chain(wrong) - golden.end).max() > 100 * WHOLE_CHAIN


def in_native_chain(network: Any) -> np.ndarray:
    """Images `IMAGES` of gallery `SEED` by the defaults of the network, which runs in torch."""
    model = network.model
    manifest = Manifest(pysdk_version="0", model=model, schedule=network.schedule, defaults=network.defaults)
    table = resolve_table(manifest, network.make_schedule(), None, None, {})
    chain = _native.Chain(
        batch=len(IMAGES), shape=model.shape, out_channels=model.out_channels, guided=False, threads=1
    )
    x, t = torch.from_numpy(chain.network_input), torch.from_numpy(chain.network_time)
    out = torch.from_numpy(chain.network_output)
    labels = () if model.num_classes is None else (torch.from_numpy(chain.network_labels),)
    chain.attach(lambda: out.copy_(network.module(x, t, *labels)))
    chain.begin(
        table.native,
        seeds=np.full(len(IMAGES), SEED, np.uint64),
        images=IMAGES,
        labels=LABELS if labels else None,
        null_label=-1,
        guidance=None,
    )
    assert chain.advance(len(table)) == len(table)
    return chain.x.copy()


@pytest.mark.slow
@pytest.mark.parametrize("golden", ["guided_xstart"], indirect=True)
def test_a_built_plan(golden, tmp_path):
    build(golden.path, tmp_path / "guided.plan", importer_options=golden.flags, batch_size=2, check_seconds=2)
    with Sampler(tmp_path / "guided.plan", threads=1) as sampler:
        assert sampler.plan.manifest.defaults.steps == "20"
        images = [
            sampler.sample(1, seed=SEED, start=int(image), labels=int(label), output="float32", progress=False)
            for image, label in zip(IMAGES, LABELS, strict=True)
        ]
        with pytest.raises(OptionError, match="trained without a null label"):
            sampler.sample(1, labels=0, guidance_scale=2.0)
    np.testing.assert_allclose(np.concatenate(images), golden.end, rtol=0, atol=WHOLE_CHAIN)


def test_the_classifier(tmp_path):
    golden = Golden("classifier", tmp_path)
    classifier = load_classifier(golden.path, golden.flags)
    x = torch.from_numpy(normal(SEED, IMAGES, 0, (3, 64, 64)))
    for t, expected in zip(golden.times, golden.calls, strict=True):
        assert relative(classifier(x, torch.tensor([float(t)])).numpy(), expected) <= PER_CALL


def test_the_classifier_of_other_flags(tmp_path):
    golden = Golden("classifier", tmp_path)
    with pytest.raises(OptionError, match="--classifier_pool is 'spatial'; only attention"):
        load_classifier(golden.path, {**golden.flags, "classifier_pool": "spatial"})
    with pytest.raises(OptionError, match="--num_channels is no flag of a classifier"):
        load_classifier(golden.path, {**golden.flags, "num_channels": "32"})
    with pytest.raises(CheckpointError, match="lacks"):
        load_classifier(golden.path, {**golden.flags, "classifier_depth": "2"})
    with pytest.raises(CheckpointError, match="no classifier with attention pooling"):
        load_classifier(Golden("guided", tmp_path).path, golden.flags)


def test_half_precision_weights(guided):
    half = {name: tensor.half() for name, tensor in guided.weights.items()}
    network = load_network(guided.save(half), guided.flags)
    assert {parameter.dtype for parameter in network.module.parameters()} == {torch.float32}
    rounded = load_network(guided.save({name: tensor.float() for name, tensor in half.items()}), guided.flags)
    x = torch.from_numpy(normal(SEED, IMAGES, 0, network.model.shape))
    inputs = x, torch.tensor([7.0]), torch.from_numpy(LABELS)
    assert torch.equal(network.module(*inputs), rounded.module(*inputs))


def test_a_fractional_channel_mult(tmp_path):
    """ADM's 512x512 network begins at half its base width."""
    config = UNetConfig(model_channels=64, channel_mult=(0.5, 1), attention_levels=(), num_res_blocks=1)
    unet = UNet(config)
    assert unet.stem.out_channels == 32
    assert unet.down[-1].block.conv2.out_channels == 64
    assert parse_flags({"image_size": "512"}).levels == (0.5, 1, 1, 2, 2, 4, 4)


# What the plan says.


def defaults_of(guided: Golden, **flags: str) -> Any:
    return load_network(str(guided.path), {**guided.flags, **flags})


def test_what_the_flags_become(guided):
    network = defaults_of(guided)
    assert network.model.variance_type == "learned_range"
    assert network.model.prediction_type == "epsilon"
    assert (network.model.num_classes, network.model.null_label) == (1000, None)
    assert network.defaults.solver == "ddpm"
    assert defaults_of(guided, timestep_respacing="").defaults.steps is None
    ddim = defaults_of(guided, use_ddim="True", timestep_respacing="ddim50", clip_denoised="no").defaults
    assert (ddim.solver, ddim.steps, ddim.clip.kind) == ("ddim", "ddim50", "none")
    assert ddim.options == {"use_clipped_model_output": True}


@pytest.mark.parametrize("name", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [100, 1000, 4000])
def test_schedules(name, steps):
    """Upstream's definitions, written out: scaled ends, and a cosine clipped at 0.999."""
    schedule = make_schedule(parse_flags({"noise_schedule": name, "diffusion_steps": str(steps), "sigma_small": "1"}))
    if name == "linear":
        expected = np.linspace(1000 / steps * 0.0001, 1000 / steps * 0.02, steps)
    else:
        signal = [np.cos((i / steps + 0.008) / 1.008 * np.pi / 2) ** 2 for i in range(steps + 1)]
        expected = np.array([min(1 - b / a, 0.999) for a, b in itertools.pairwise(signal)])
    np.testing.assert_allclose(schedule.betas, expected, rtol=1e-9)


def test_which_repository():
    assert parse_flags({"image_size": "32"}).rescale_timesteps  # improved-diffusion's default
    assert not parse_flags({"image_size": "128"}).rescale_timesteps
    assert parse_flags({"repository": "improved-diffusion", "diffusion_steps": "4000"}).time_scale == 0.25
    assert parse_flags({"repository": "guided-diffusion", "diffusion_steps": "4000"}).time_scale == 1.0
    with pytest.raises(OptionError, match="--rescale_timesteps is not given, and by default it is True in improved"):
        parse_flags({"diffusion_steps": "4000"})
    with pytest.raises(OptionError, match="--sigma_small is a flag of improved-diffusion, --channel_mult of guided"):
        parse_flags({"sigma_small": "True", "channel_mult": "1,2"})
    with pytest.raises(OptionError, match="--use_fp16 is not a flag of improved-diffusion"):
        parse_flags({"repository": "improved-diffusion", "use_fp16": "True"})
