"""Tiny random pipelines of diffusers, and what their own __call__ makes of our noise."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.pipelines.ddim import pipeline_ddim
from diffusers.pipelines.ddpm import pipeline_ddpm
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm

from pysdk.noise import normal

SEED = 77
IMAGES = np.array([8, 9], dtype=np.uint64)

CIFAR = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 16, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": None,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
"""The layout of google/ddpm-cifar10-32."""

SMALL = {
    "sample_size": (8, 4),
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def make_unet(size: float = 1.0, **config: Any) -> UNet2DModel:
    """A network with every weight random, its output scaled by `size`, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DModel(**config)
        for parameter in unet.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        for parameter in unet.conv_out.parameters():
            parameter.data *= size
    return unet.eval()


def make_pipeline(unet: UNet2DModel, scheduler: DDPMScheduler | DDIMScheduler) -> DDPMPipeline | DDIMPipeline:
    """The pipeline of the scheduler's kind."""
    kind = DDIMPipeline if isinstance(scheduler, DDIMScheduler) else DDPMPipeline
    return kind(unet=unet, scheduler=scheduler)


def save_pipeline(folder: Path, unet: UNet2DModel, scheduler: DDPMScheduler | DDIMScheduler, **options: Any) -> str:
    """A pipeline's folder."""
    make_pipeline(unet, scheduler).save_pretrained(folder, **options)
    return str(folder)


def run_theirs(folder: str, labels: np.ndarray | None = None, **arguments: Any) -> np.ndarray:
    """float32 (2, C, H, W): the last x of the pipeline's own __call__, before it clamps, with our noise."""
    kind = DDIMPipeline if "DDIMPipeline" in (Path(folder) / "model_index.json").read_text() else DDPMPipeline
    pipeline = kind.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    draws, ends = [], []
    step = pipeline.scheduler.step

    def randn_tensor(shape: tuple[int, ...], **_: Any) -> torch.Tensor:
        draws.append(shape)
        return torch.from_numpy(normal(SEED, IMAGES, len(draws) - 1, shape[1:]))

    def recording_step(*inputs: Any, **options: Any) -> Any:
        ends[:] = [step(*inputs, **options)]
        return ends[0]

    if labels is not None:  # these pipelines have no labels of their own
        pipeline.unet.forward = functools.partial(pipeline.unet.forward, class_labels=torch.from_numpy(labels))
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline_ddpm, pipeline_ddim, scheduling_ddpm, scheduling_ddim):
            patch.setattr(module, "randn_tensor", randn_tensor)
        patch.setattr(pipeline.scheduler, "step", recording_step)
        shown = pipeline(batch_size=len(IMAGES), output_type="np", **arguments).images
    end = ends[0].prev_sample.numpy()
    np.testing.assert_array_equal(shown, (end / 2 + 0.5).clip(0, 1).transpose(0, 2, 3, 1))
    return end


def run_ours(sampler: Any, **arguments: Any) -> np.ndarray:
    """The same images of the same gallery from a plan."""
    return sampler.sample(len(IMAGES), seed=SEED, start=int(IMAGES[0]), output="float32", **arguments)
