"""Checkpoints (.pt) of OpenAI's improved-diffusion and guided-diffusion, with the flags of their scripts as options.

improved-diffusion: Nichol & Dhariwal, 2021, https://arxiv.org/abs/2102.09672
guided-diffusion: Dhariwal & Nichol, 2021, https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pysdk.diffusion.schedule import Schedule
from pysdk.errors import CheckpointError
from pysdk.export.importers.openai.flags import Flags, parse_flags
from pysdk.export.importers.openai.keys import check_flags, load_upstream, set_heads
from pysdk.export.importers.torch_file import read_state_dict
from pysdk.export.network import Network
from pysdk.plan.manifest import ClipInfo, DefaultsInfo, ModelInfo, ScheduleInfo
from pysdk.training.unet import UNet, UNetConfig

SUFFIXES = (".pt", ".pth")


class ScaledTime(nn.Module):
    """A network on timesteps that are multiplied first (rescale_timesteps): forward(x, t[, label])."""

    def __init__(self, network: nn.Module, scale: float) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        out: Tensor = self.network(x, t * self.scale) if label is None else self.network(x, t * self.scale, label)
        return out


def matches(source: str) -> bool:
    """Whether `source` is named like a file of torch.save."""
    return Path(source).suffix in SUFFIXES


def load(source: str, options: dict[str, str]) -> Network:
    """The network, its schedule and, as defaults, what upstream's image_sample.py does with the same flags.

    Raises:
        CheckpointError: the file is no such checkpoint, or not of the network the flags describe.
        OptionError: a flag that upstream does not have, or a value it would not take.
    """
    flags = parse_flags(options)
    weights = read_state_dict(Path(source))
    module = make_unet(weights, flags, repr(source))
    config = module.config
    model = ModelInfo(
        name=Path(source).stem,
        shape=config.image_shape,
        out_channels=config.out_channels,
        prediction_type="sample" if flags.predict_xstart else "epsilon",
        variance_type="learned_range" if flags.learn_sigma else "fixed_small" if flags.sigma_small else "fixed_large",
        num_classes=config.num_classes,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        description=f"Imported from a checkpoint of {flags.repository}.",
    )
    network = module if flags.time_scale == 1.0 else ScaledTime(module, flags.time_scale)
    schedule = ScheduleInfo(name=flags.noise_schedule, betas=tuple(make_schedule(flags).betas.tolist()))
    return Network(network.eval(), model, schedule, make_defaults(flags))


def make_unet(weights: Mapping[str, Tensor], flags: Flags, source: str) -> UNet:
    """The U-Net that the flags describe, with upstream's weights.

    Raises:
        CheckpointError: these are not the weights of such a network.
    """
    if not {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} & weights.keys():
        raise CheckpointError(
            f"{source} is no network of improved-diffusion or guided-diffusion; it begins with {next(iter(weights))!r}"
        )
    check_flags(weights, flags, source)
    channels = weights["input_blocks.0.0.weight"].shape[1] if "input_blocks.0.0.weight" in weights else 3
    config = UNetConfig(
        image_shape=(channels, flags.image_size, flags.image_size),
        model_channels=flags.num_channels,
        channel_mult=flags.levels,
        num_res_blocks=flags.num_res_blocks,
        attention_levels=flags.attention_levels,
        head_channels=1,  # divides everything; set_heads has the word
        num_classes=weights["label_emb.weight"].shape[0] if flags.class_cond else None,
        learn_variance=flags.learn_sigma,
        scale_shift_norm=flags.use_scale_shift_norm,
        resample="resblock" if flags.resblock_updown else "conv",
    )
    with torch.device("meta"):  # no time spent on weights that are replaced
        module = UNet(config)
    set_heads(module, flags)
    load_upstream(module, weights, source, legacy_order=not flags.use_new_attention_order)
    return module


def make_schedule(flags: Flags) -> Schedule:
    """Upstream's named schedules: "linear" is DDPM's stretched to any number of timesteps, "cosine" iDDPM's eq. 17."""
    if flags.noise_schedule == "cosine":
        return Schedule.cosine(flags.diffusion_steps)
    stretch = 1000 / flags.diffusion_steps
    return Schedule.linear(flags.diffusion_steps, stretch * 0.0001, stretch * 0.02)


def make_defaults(flags: Flags) -> DefaultsInfo:
    """p_sample_loop, or ddim_sample_loop, which takes the noise from the clipped estimate."""
    return DefaultsInfo(
        solver="ddim" if flags.use_ddim else "ddpm",
        steps="".join(flags.timestep_respacing.split()) or None,
        options={"use_clipped_model_output": True} if flags.use_ddim else {},
        clip=ClipInfo() if flags.clip_denoised else ClipInfo(kind="none"),
    )
