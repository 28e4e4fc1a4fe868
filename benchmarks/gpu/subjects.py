"""What is measured on a GPU: two networks, each run in bf16 on float32 chains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pysdk.manifest import ModelInfo

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "fashion-mnist"


class Bf16(nn.Module):
    """A network in bfloat16 and channels_last behind float32 inputs and outputs: (x, t[, label]) -> output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to("cuda", torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x = x.to(torch.bfloat16, memory_format=torch.channels_last)
        made: Any = self.network(x, t) if label is None else self.network(x, t, label)
        return (made if isinstance(made, Tensor) else made.sample).float()


@dataclass(frozen=True)
class Subject:
    """A model: how a chain reads it, and its network on the GPU."""

    name: str
    model: ModelInfo
    network: nn.Module

    def labels(self, batch: int) -> Tensor | None:
        if self.model.num_classes is None:
            return None
        return torch.arange(batch, device="cuda") % self.model.num_classes

    def flops(self) -> float:
        """Floating point operations of one image's network call, a multiplication and an addition being two."""
        from torch.utils.flop_counter import FlopCounterMode

        x = torch.zeros(1, *self.model.shape, device="cuda")
        labels = self.labels(1)
        extra = () if labels is None else (labels,)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(x, torch.zeros(1, device="cuda"), *extra)
        return float(counter.get_total_flops())


def ddpm_cifar10() -> Subject:
    """The U-Net of DDPM on CIFAR-10 in diffusers' configuration (google/ddpm-cifar10-32), random weights."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    model = ModelInfo(name="ddpm-cifar10", shape=(3, 32, 32), out_channels=3, parameters=parameters)
    return Subject("ddpm-cifar10", model, Bf16(network.eval()))


def shipped() -> Subject:
    """The model in this repository: 28x28, ten classes, learned variance."""
    from pysdk.training.checkpoint import load_model

    config, network = load_model(CHECKPOINT)
    channels, height, width = config.unet.image_shape
    model = ModelInfo(
        name="shipped",
        shape=(channels, height, width),
        out_channels=config.unet.out_channels,
        variance_type="learned_range" if config.unet.learn_variance else "fixed_small",
        prediction_type=config.prediction_type,  # type: ignore[arg-type]
        num_classes=config.unet.num_classes,
    )
    # its sinusoids are float32, and the layer that takes them no longer is
    network.time_embed.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(torch.bfloat16),))
    return Subject("shipped", model, Bf16(network))


SUBJECTS: dict[str, Callable[[], Subject]] = {"ddpm-cifar10": ddpm_cifar10, "shipped": shipped}
