"""Pipelines of diffusers, built into plans, against their own __call__ on the same noise.

Networks are tiny and random; every one is lowered once, the other plans of the same network reuse its ONNX file.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from kit.importers.diffusers_pipelines import CIFAR, SMALL, make_unet, run_ours, run_theirs, save_pipeline

from pysdk import Plan, Sampler
from pysdk.export.build import build
from pysdk.export.importers import load_network
from pysdk.export.lowering import torch_to_onnx

TOLERANCE = 1e-4
"""Largest error of a chain's end, for images in [-1, 1]."""

OTHER_BLOCKS = {
    "sample_size": 64,
    "block_out_channels": (32, 32, 32),
    "down_block_types": ("SkipDownBlock2D", "AttnSkipDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("ResnetUpsampleBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 8,
}
"""Those that `CIFAR` has not, but for KDownBlock2D and KUpBlock2D, which run with each other only."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lower(tmp_path_factory):
    """folder -> plan, through `build`; an ONNX file is exported once for each set of weights."""
    exported, export = {}, torch_to_onnx.export_onnx

    def export_once(network):
        key = sum(parameter.double().abs().sum().item() for parameter in network.module.parameters())
        if key not in exported:
            exported[key] = export(network)
        return exported[key]

    def make(folder: str, **options: object) -> Path:
        plan = tmp_path_factory.mktemp("plan") / "engine.plan"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch_to_onnx, "export_onnx", export_once)
            build(folder, plan, batch_size=2, check_seconds=2, **options)  # compared with the pipeline here
        return plan

    return make


@pytest.fixture(scope="module")
def cifar():
    return make_unet(0.1, **CIFAR)


def assert_same(folder, plan, steps, name="", **arguments):
    theirs = run_theirs(folder, num_inference_steps=steps, **arguments)
    eta = {"eta": arguments["eta"]} if "eta" in arguments else {}
    with Sampler(plan, threads=1) as sampler:
        ours = run_ours(sampler, steps=steps, **eta, **({"labels": 1} if "labels" in arguments else {}))
    assert np.isfinite(theirs).all()
    assert (np.abs(theirs) < 0.99).mean() > 0.1  # an end that is all clipped would prove nothing
    print(f"{name}, {steps} steps: max error {np.abs(ours - theirs).max():.2e}")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


SCHEDULERS = {
    "ddpm": DDPMScheduler(num_train_timesteps=100, variance_type="fixed_large"),
    "cosine": DDPMScheduler(
        num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", variance_type="fixed_small_log"
    ),
    "v_prediction": DDPMScheduler(
        num_train_timesteps=100,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        variance_type="fixed_large",
        clip_sample=False,
    ),
    "linspace": DDIMScheduler(num_train_timesteps=100, timestep_spacing="linspace", prediction_type="v_prediction"),
    "sample": DDPMScheduler(num_train_timesteps=100, beta_schedule="sigmoid", prediction_type="sample"),
    "thresholding": DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="scaled_linear",
        thresholding=True,
        dynamic_thresholding_ratio=0.9,
        sample_max_value=1.5,
        timestep_spacing="trailing",
        set_alpha_to_one=False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
def test_cifar_layout(cifar, name, tmp_path, lower):
    """With 20 of 100 timesteps, and with 30, which does not divide it."""
    folder = save_pipeline(tmp_path / "pipeline", cifar, SCHEDULERS[name])
    plan = lower(folder)
    for steps in (20, 30):
        assert_same(folder, plan, steps, name)
    if isinstance(SCHEDULERS[name], DDIMScheduler):
        assert_same(folder, plan, 30, f"{name} eta 0.7", eta=0.7)


@pytest.mark.slow
def test_a_thousand_steps(cifar, tmp_path, lower):
    folder = save_pipeline(tmp_path / "pipeline", cifar, DDPMScheduler(variance_type="fixed_large"))
    plan = lower(folder)
    with Sampler(plan) as sampler:
        defaults = sampler.plan.manifest.defaults
    assert (defaults.solver, defaults.steps) == ("ddpm", 1000)
    assert_same(folder, plan, 1000, "ddpm")


@pytest.mark.slow
def test_ddim_as_it_comes(cifar, tmp_path, lower):
    """A random network is no denoiser: without fresh noise its chain amplifies rounding, more with every step."""
    folder = save_pipeline(tmp_path / "pipeline", cifar, DDIMScheduler())
    plan = lower(folder)
    with Sampler(plan) as sampler:
        defaults = sampler.plan.manifest.defaults
    assert (defaults.solver, defaults.steps) == ("ddim", 50)
    assert_same(folder, plan, 10, "ddim")
    assert_same(folder, plan, 20, "ddim eta 1", eta=1.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # diffusers 0.35, the last for Python 3.10
def test_the_other_blocks_at_64x64(tmp_path, lower):
    folder = save_pipeline(
        tmp_path / "pipeline", make_unet(**OTHER_BLOCKS), DDIMScheduler(num_train_timesteps=20, clip_sample_range=0.9)
    )
    plan = lower(folder)
    assert_same(folder, plan, 20, "other blocks")
    with Plan.open(plan) as opened:  # filters of the Skip blocks
        (engine,) = opened.manifest.engines
        assert re.search(r"native engine: node '\w+' \(Pad\): pads a tensor of shape", engine.notes)


@pytest.mark.slow
def test_classes_and_learned_variance(tmp_path, lower):
    unet = make_unet(**SMALL, out_channels=6, num_class_embeds=4, resnet_time_scale_shift="scale_shift")
    scheduler = DDPMScheduler(num_train_timesteps=100, variance_type="learned_range", timestep_spacing="trailing")
    folder = save_pipeline(tmp_path / "pipeline", unet, scheduler, safe_serialization=False)
    plan = lower(folder, importer_options={"null_label": "3"})
    labels = np.array([1, 1])
    assert_same(folder, plan, 20, "learned_range, classes", labels=labels)
    with Sampler(plan) as sampler:
        assert (sampler.plan.manifest.model.num_classes, sampler.plan.manifest.model.null_label) == (3, 3)
        guided = run_ours(sampler, labels=1, guidance_scale=2.0)
    assert np.isfinite(guided).all()


@pytest.mark.parametrize(
    "config",
    [
        CIFAR,
        {**SMALL, "center_input_sample": True, "num_class_embeds": 5},
        {**SMALL, "time_embedding_type": "learned", "num_train_timesteps": 1000, "mid_block_type": None},
        {**SMALL, "down_block_types": ("UNetResDownBlock2D",) * 2, "up_block_types": ("UNetResUpBlock2D",) * 2},
        {
            **SMALL,
            "down_block_types": ("KDownBlock2D",) * 2,
            "up_block_types": ("KUpBlock2D",) * 2,
            "block_out_channels": (32, 64),
        },
        {**SMALL, "downsample_type": "resnet", "upsample_type": "resnet", "dropout": 0.5, "add_attention": False},
    ],
    ids=["cifar", "centred classes", "learned times", "old names", "k blocks", "resnet resampling"],
)
def test_the_network_is_theirs(config, tmp_path):
    """One t for the batch, and one per image; labels differ."""
    unet = make_unet(**config)
    unet.save_pretrained(tmp_path)
    network = load_network(str(tmp_path), {})
    x = torch.randn(3, *network.model.shape)
    label = torch.tensor([0, 4, 2]) if "num_class_embeds" in config else None
    extra = () if label is None else (label,)
    with torch.no_grad():
        for t in (torch.tensor([7]), torch.tensor([999, 0, 30])):
            expected = unet(x, t.expand(3), class_labels=label).sample
            torch.testing.assert_close(network.module(x, t.float(), *extra), expected, rtol=1e-5, atol=1e-5)


def test_the_time_embedding_is_computed_once(tmp_path):
    make_unet(**SMALL).save_pretrained(tmp_path)
    module = load_network(str(tmp_path), {}).module
    shapes = []
    module.unet.time_embedding.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape)))
    module(torch.zeros(5, 3, 8, 4), torch.zeros(1))
    assert shapes == [(1, 32)]
