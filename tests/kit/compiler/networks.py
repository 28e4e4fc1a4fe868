"""Whole networks as plans keep them, by name; each is exported once a session."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from kit.tiny_networks import save_random_unet
from pysdk.export.importers import load_network
from pysdk.export.network import Network

DEEP = {
    "sample_size": 32,
    "block_out_channels": (8, 8, 16, 16, 24, 24),
    "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}
"""The layout of google/ddpm-celebahq-256; the innermost maps have one pixel."""

OPTIONS = {
    "sample_size": (8, 4),
    "in_channels": 2,
    "out_channels": 2,
    "block_out_channels": (8, 16),
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attn_norm_num_groups": 2,
    "attention_head_dim": 4,
    "resnet_time_scale_shift": "scale_shift",
    "num_class_embeds": 5,
    "center_input_sample": True,
    "mid_block_scale_factor": 1.41,
}
"""What the diffusers layouts of the models on the Hub do not use."""


def unet(**options: object) -> Network:
    """A network of our training module."""
    with tempfile.TemporaryDirectory() as folder:
        return load_network(str(save_random_unet(Path(folder), timesteps=20, **options)), {})


def diffusers(**config: object) -> Network:
    """A UNet2DModel."""
    from diffusers import DDPMScheduler

    from kit.importers.diffusers_pipelines import make_unet, save_pipeline

    with tempfile.TemporaryDirectory() as folder:
        scheduler = DDPMScheduler(num_train_timesteps=20)
        return load_network(save_pipeline(Path(folder) / "pipeline", make_unet(**config), scheduler), {})


def openai(name: str) -> Network:
    """A network of OpenAI."""
    from kit.importers.openai_weights import Golden

    with tempfile.TemporaryDirectory() as folder:
        golden = Golden(name, Path(folder))
        return load_network(str(golden.path), golden.flags)


NETWORKS: dict[str, Callable[[], Network]] = {
    "ours: odd channels, resampling blocks, classes": lambda: unet(
        image_shape=(3, 12, 4),
        model_channels=9,
        norm_groups=3,
        head_channels=3,
        channel_mult=(1, 1, 2),
        attention_levels=(0, 2),
        num_res_blocks=(0, 1, 2),
        resample="resblock",
        scale_shift_norm=True,
        num_classes=2,
        learn_variance=True,
    ),
    "diffusers: six levels": lambda: diffusers(**DEEP),
    "diffusers: every option": lambda: diffusers(**OPTIONS),
    "openai: guided": lambda: openai("guided"),
}
