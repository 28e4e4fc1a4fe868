"""The U-Net of DDPM (2006.11239) with the options of iDDPM (2102.09672) and ADM (2105.05233)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from pysdk.errors import OptionError

MAX_LEVELS, MAX_BLOCKS = 12, 64
"""The most levels of a network and residual blocks of a level, several times those of any published one."""


@dataclass(frozen=True)
class UNetConfig:
    """What a U-Net is built from; stored beside its weights.

    Attributes:
        image_shape: (C, H, W) of an image; H and W divisible by 2 ** (len(channel_mult) - 1).
        model_channels: channels of the first level.
        channel_mult: channels of level i are model_channels * channel_mult[i]; each level halves H and W.
        num_res_blocks: residual blocks per level on the way down (one more on the way up): one number, or one per level
            so that the costly full resolution can have fewer.
        attention_levels: levels (0 = full resolution) with self-attention after each residual block; the middle
            always has it.
        head_channels: channels per attention head.
        norm_groups: groups of every GroupNorm.
        dropout: dropout probability inside residual blocks.
        num_classes: classes of a conditional network, None for an unconditional one.
        null_label: whether a class-conditional network has one more label, `num_classes`, that means "no class"
            (classifier-free guidance, 2207.12598).
        learn_variance: whether the network also returns the variance interpolation v (iDDPM eq. 15): 2C channels out.
        scale_shift_norm: whether the embedding scales and shifts the second GroupNorm (ADM) or is added before it
            (DDPM).
        resample: how levels are joined: "conv" strided and nearest + 3x3 convolutions (DDPM), "pool" average pooling
            and nearest without weights, "resblock" residual blocks that resample (ADM).
    """

    image_shape: tuple[int, int, int] = (3, 32, 32)
    model_channels: int = 128
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    num_res_blocks: int | tuple[int, ...] = 2
    attention_levels: tuple[int, ...] = (1,)
    head_channels: int = 64
    norm_groups: int = 32
    dropout: float = 0.0
    num_classes: int | None = None
    null_label: bool = False
    learn_variance: bool = False
    scale_shift_norm: bool = False
    resample: str = "conv"

    def __post_init__(self) -> None:
        # JSON gives lists back
        for name in ("image_shape", "channel_mult", "attention_levels", "num_res_blocks"):
            value = getattr(self, name)
            object.__setattr__(self, name, value if isinstance(value, int) else tuple(value))
        if not self.channel_mult or min(self.channel_mult) <= 0:
            raise OptionError(
                f"channel_mult is {str(self.channel_mult)[:80]}; expected a number above 0 for each level."
            )
        self._check_sizes()
        if not 0 <= self.dropout < 1:
            raise OptionError(f"dropout is {self.dropout}; expected a number in [0, 1).")
        if len(self.blocks_per_level) != len(self.channel_mult):
            raise OptionError(
                f"num_res_blocks is {self.num_res_blocks}; expected one number or {len(self.channel_mult)} of them, "
                "one per entry of channel_mult."
            )
        shrink = 2 ** (len(self.channel_mult) - 1)
        if any(size % shrink for size in self.image_shape[1:]):
            raise OptionError(
                f"image_shape is {self.image_shape}; with {len(self.channel_mult)} levels H and W must be multiples of "
                f"{shrink}: pad the images or use fewer entries in channel_mult."
            )
        for mult in self.channel_mult:
            if (self.model_channels * mult) % self.norm_groups:
                raise OptionError(
                    f"A level has {self.model_channels * mult} channels, which norm_groups={self.norm_groups} does not "
                    "divide: choose model_channels and channel_mult as multiples of it."
                )
        if self.resample not in ("conv", "pool", "resblock"):
            raise OptionError(f"resample is {self.resample!r}; expected 'conv', 'pool' or 'resblock'.")
        if self.null_label and self.num_classes is None:
            raise OptionError("null_label is set but num_classes is None: give the number of classes as well.")

    def _check_sizes(self) -> None:
        """OptionError for numbers that no network has and that would take hours or all memory to try."""
        for name in ("model_channels", "head_channels", "norm_groups", "num_classes"):
            value, most = getattr(self, name), 1_000_000 if name == "num_classes" else 16384
            if value is not None and not 1 <= value <= most:
                raise OptionError(f"{name} is {value}; expected at least 1 and at most {most}.")
        for name, least, most, count in (
            ("image_shape", 1, 16384, 3),
            ("channel_mult", 0, 1024, MAX_LEVELS),
            ("num_res_blocks", 0, MAX_BLOCKS, MAX_LEVELS),
            ("attention_levels", 0, MAX_LEVELS, MAX_LEVELS),
        ):
            values = getattr(self, name)
            values = (values,) if isinstance(values, int) else values
            if len(values) > count or not all(least <= value <= most for value in values):
                raise OptionError(
                    f"{name} is {str(getattr(self, name))[:80]}; expected up to {count} numbers from {least} to {most}."
                )
        if len(self.image_shape) != 3:
            raise OptionError(f"image_shape is {self.image_shape}; expected three numbers (C, H, W).")

    @property
    def blocks_per_level(self) -> tuple[int, ...]:
        """`num_res_blocks` spelled out, one number per level."""
        blocks = self.num_res_blocks
        return (blocks,) * len(self.channel_mult) if isinstance(blocks, int) else blocks

    @property
    def out_channels(self) -> int:
        """Channels the network returns: C, or 2C with a learned variance."""
        return self.image_shape[0] * (2 if self.learn_variance else 1)


def timestep_embedding(t: Tensor, channels: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoidal embedding (cos first, as in iDDPM): t float (B,) -> float (B, channels)."""
    half = channels // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, 1)) if channels % 2 else embedding


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all weights zero, so that a residual branch adds nothing at first."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class Downsample(nn.Module):
    """Halves H and W: (B, C, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Doubles H and W by nearest neighbour: (B, C, H, W) -> (B, C, 2H, 2W)."""

    def __init__(self, channels: int, learned: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class ResBlock(nn.Module):
    """GroupNorm, SiLU, 3x3 convolution, twice, around the embedding; plus the shortcut.

    (B, C, H, W), embedding (1 or B, E) -> (B, C', H', W'), with H' = H unless the block resamples.
    """

    def __init__(self, c_in: int, c_out: int, config: UNetConfig, resample: str | None = None) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift_norm
        self.norm1 = nn.GroupNorm(config.norm_groups, c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(4 * config.model_channels, c_out * (2 if self.scale_shift else 1))
        self.norm2 = nn.GroupNorm(config.norm_groups, c_out)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        resamplers = {"down": Downsample, "up": Upsample}
        self.resample = nn.Identity() if resample is None else resamplers[resample](c_in, learned=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        e = self.embed(F.silu(embedding))[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        out: Tensor = self.shortcut(self.resample(x)) + self.conv2(self.dropout(F.silu(h)))
        return out


class Attention(nn.Module):
    """Multi-head self-attention over the H*W positions, with its shortcut: (B, C, H, W) -> same."""

    def __init__(self, channels: int, config: UNetConfig) -> None:
        super().__init__()
        if channels % config.head_channels:
            raise OptionError(
                f"Attention over {channels} channels cannot have heads of {config.head_channels}: "
                "choose head_channels that divides the channels of every level with attention."
            )
        self.heads = channels // config.head_channels
        self.norm = nn.GroupNorm(config.norm_groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        _, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).reshape(-1, 3, self.heads, c // self.heads, h * w)
        q, k, v = qkv.transpose(3, 4).unbind(1)  # each (B, heads, H*W, head_channels)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3)
        out: Tensor = x + self.out(mixed.reshape(-1, c, h, w))
        return out


class Stage(nn.Module):
    """A residual block (or a plain resampler) with an optional attention behind it."""

    def __init__(self, block: nn.Module, attention: Attention | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.block(x, embedding) if isinstance(self.block, ResBlock) else self.block(x)
        return x if self.attention is None else self.attention(x)


class UNet(nn.Module):
    """The denoiser: (x, t, label) -> the network's output.

    Args of forward:
        x: float32 (B, C, H, W), the noisy image in [-1, 1]-scale.
        t: float32 (B,) or (1,), the timestep 0..T-1; one value serves the whole batch, and its embedding is then
            computed once.
        label: int64 (B,), class 0..num_classes-1 or the null label; only for class-conditional networks.

    Returns:
        float32 (B, out_channels, H, W): the prediction (eps, x0 or v), then v of the learned variance if there is one.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        channels, width = config.image_shape[0], 4 * config.model_channels
        self.time_embed = nn.Sequential(nn.Linear(config.model_channels, width), nn.SiLU(), nn.Linear(width, width))
        if config.num_classes is not None:
            self.label_embed = nn.Embedding(config.num_classes + config.null_label, width)

        levels = [int(config.model_channels * mult) for mult in config.channel_mult]
        current, skips = levels[0], [levels[0]]
        self.stem = nn.Conv2d(channels, current, 3, padding=1)

        self.down = nn.ModuleList()
        for level, width_here in enumerate(levels):
            for _ in range(config.blocks_per_level[level]):
                self.down.append(self._stage(current, width_here, level))
                current = width_here
                skips.append(current)
            if level < len(levels) - 1:
                self.down.append(Stage(self._resampler(current, "down")))
                skips.append(current)

        self.middle = nn.ModuleList(
            [
                Stage(ResBlock(current, current, config), Attention(current, config)),
                Stage(ResBlock(current, current, config)),
            ]
        )

        self.up = nn.ModuleList()
        self.upsample = nn.ModuleDict()
        for level, width_here in reversed(list(enumerate(levels))):
            for _ in range(config.blocks_per_level[level] + 1):
                self.up.append(self._stage(current + skips.pop(), width_here, level))
                current = width_here
            if level:
                self.upsample[str(len(self.up) - 1)] = Stage(self._resampler(current, "up"))

        self.head = nn.Sequential(
            nn.GroupNorm(config.norm_groups, current),
            nn.SiLU(),
            zeroed(nn.Conv2d(current, config.out_channels, 3, padding=1)),
        )

    def _stage(self, c_in: int, c_out: int, level: int) -> Stage:
        attention = Attention(c_out, self.config) if level in self.config.attention_levels else None
        return Stage(ResBlock(c_in, c_out, self.config), attention)

    def _resampler(self, channels: int, direction: str) -> nn.Module:
        if self.config.resample == "resblock":
            return ResBlock(channels, channels, self.config, resample=direction)
        learned = self.config.resample == "conv"
        return Downsample(channels, learned) if direction == "down" else Upsample(channels, learned)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.time_embed(timestep_embedding(t, self.config.model_channels))
        if self.config.num_classes is not None:
            if label is None:
                raise OptionError("This network is class-conditional: pass label, int64 of shape (B,).")
            embedding = embedding + self.label_embed(label)
        h = self.stem(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for index, stage in enumerate(self.up):
            h = stage(torch.cat([h, skips.pop()], dim=1), embedding)
            if str(index) in self.upsample:
                h = self.upsample[str(index)](h, embedding)
        out: Tensor = self.head(h)
        return out
