"""The noisy-image classifiers of guided-diffusion (2105.05233, section 4): half a U-Net with attention pooling.

They are not denoisers, so no plan is built from them; `pysdk.export.classifier.adding` puts their gradient into one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pysdk.errors import CheckpointError, OptionError
from pysdk.export.importers.openai.flags import Flags, parse_flags
from pysdk.export.importers.openai.keys import load_upstream, set_heads
from pysdk.export.importers.torch_file import read_state_dict
from pysdk.training.unet import Attention, Downsample, ResBlock, Stage, UNetConfig, timestep_embedding

HEAD_CHANNELS = 64
"""Channels of an attention head in every classifier of guided-diffusion."""

_DEFAULTS = {
    "image_size": "64",
    "classifier_use_fp16": "False",
    "classifier_width": "128",
    "classifier_depth": "2",
    "classifier_attention_resolutions": "32,16,8",
    "classifier_use_scale_shift_norm": "True",
    "classifier_resblock_updown": "True",
    "classifier_pool": "attention",
}
_AS_UNET = {
    "classifier_use_fp16": "use_fp16",
    "classifier_width": "num_channels",
    "classifier_depth": "num_res_blocks",
    "classifier_attention_resolutions": "attention_resolutions",
    "classifier_use_scale_shift_norm": "use_scale_shift_norm",
    "classifier_resblock_updown": "resblock_updown",
}


class AttentionPool(nn.Module):
    """Attention of the mean over positions to all positions: (B, C, S, S) -> (B, classes)."""

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.heads = channels // HEAD_CHANNELS
        self.positional_embedding = nn.Parameter(torch.zeros(channels, size * size + 1))
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        tokens = torch.cat([flat.mean(dim=2, keepdim=True), flat], dim=2) + self.positional_embedding
        qkv = self.qkv_proj(tokens).unflatten(1, (3, self.heads, -1)).transpose(3, 4)
        q, k, v = qkv.unbind(1)  # each (B, heads, 1 + S*S, HEAD_CHANNELS)
        pooled = F.scaled_dot_product_attention(q[:, :, :1], k, v)  # only the mean's answer is used
        out: Tensor = self.c_proj(pooled.reshape(x.shape[0], -1, 1))
        return out[:, :, 0]


class NoisyClassifier(nn.Module):
    """log p(label | x_t) up to a constant: x float32 (B, C, H, W), t float32 (B,) or (1,) -> logits (B, classes).

    Args:
        config: its half of a U-Net; `num_classes` and what concerns the way up are not used.
        classes: number of logits.
    """

    def __init__(self, config: UNetConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        width = 4 * config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(config.model_channels, width), nn.SiLU(), nn.Linear(width, width))
        levels = [int(config.model_channels * mult) for mult in config.channel_mult]
        current = levels[0]
        self.stem = nn.Conv2d(config.image_shape[0], current, 3, padding=1)
        self.down = nn.ModuleList()
        for level, channels in enumerate(levels):
            for _ in range(config.blocks_per_level[level]):
                attention = Attention(channels, config) if level in config.attention_levels else None
                self.down.append(Stage(ResBlock(current, channels, config), attention))
                current = channels
            if level < len(levels) - 1:
                is_block = config.resample == "resblock"
                self.down.append(
                    Stage(ResBlock(current, current, config, "down") if is_block else Downsample(current, learned=True))
                )
        self.middle = nn.ModuleList(
            [
                Stage(ResBlock(current, current, config), Attention(current, config)),
                Stage(ResBlock(current, current, config)),
            ]
        )
        size = config.image_shape[1] // 2 ** (len(levels) - 1)
        self.head = nn.Sequential(
            nn.GroupNorm(config.norm_groups, current), nn.SiLU(), AttentionPool(size, current, classes)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.time_embed(timestep_embedding(t, self.config.model_channels))
        h = self.stem(x)
        for stage in [*self.down, *self.middle]:
            h = stage(h, embedding)
        out: Tensor = self.head(h)
        return out


def load_classifier(path: Path, options: Mapping[str, str]) -> NoisyClassifier:
    """A classifier of guided-diffusion on the CPU, in evaluation mode.

    Args:
        path: its .pt file.
        options: image_size and the classifier_* flags of classifier_sample.py; upstream's defaults for the rest.

    Raises:
        CheckpointError: the file is no such classifier, or not the one the flags describe.
        OptionError: an unknown flag, or a pooling other than "attention".
    """
    unknown = sorted(options.keys() - _DEFAULTS.keys())
    if unknown:
        raise OptionError(f"--{unknown[0]} is no flag of a classifier; they are {', '.join(_DEFAULTS)}")
    given = {**_DEFAULTS, **options}
    if given.pop("classifier_pool") != "attention":
        raise OptionError(f"--classifier_pool is {options['classifier_pool']!r}; only attention can be loaded")
    flags = parse_flags(
        {_AS_UNET.get(name, name): value for name, value in given.items()}
        | {"num_head_channels": str(HEAD_CHANNELS), "repository": "guided-diffusion"}
    )
    weights = read_state_dict(path)
    projection = weights.get("out.2.c_proj.weight")
    if projection is None:
        raise CheckpointError(f"{str(path)!r} has no out.2.c_proj.weight: it is no classifier with attention pooling")
    with torch.device("meta"):
        module = NoisyClassifier(encoder_config(flags), classes=projection.shape[0])
    set_heads(module, flags)
    load_upstream(module, weights, repr(str(path)), legacy_order=True)
    return module


def encoder_config(flags: Flags) -> UNetConfig:
    """The way down of a U-Net as the flags have it."""
    return UNetConfig(
        image_shape=(3, flags.image_size, flags.image_size),
        model_channels=flags.num_channels,
        channel_mult=flags.levels,
        num_res_blocks=flags.num_res_blocks,
        attention_levels=flags.attention_levels,
        head_channels=HEAD_CHANNELS,
        scale_shift_norm=flags.use_scale_shift_norm,
        resample="resblock" if flags.resblock_updown else "conv",
    )
