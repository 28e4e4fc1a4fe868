"""What is measured on a GPU: two networks, each run in bf16 on float32 chains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.workload import BUILT, CHECKPOINT
from pysdk.plan.manifest import ModelInfo
from pysdk.training.checkpoint import WEIGHTS, ModelConfig, load_model, save_model
from pysdk.training.unet import UNet, UNetConfig

SUBJECTS = ("ddpm-cifar10", "shipped")

DDPM_CIFAR10 = UNetConfig(head_channels=256)
"""DDPM's network for CIFAR-10, 35,746,307 parameters, as many as diffusers' google/ddpm-cifar10-32 has."""


class Bf16(nn.Module):
    """A network in bfloat16 and channels_last behind float32 inputs and outputs: (x, t[, label]) -> output."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network.to("cuda", torch.bfloat16, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # its sinusoids are float32, and the layer that takes them no longer is
        network.time_embed.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(torch.bfloat16),))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        made: Tensor = self.network(x.to(torch.bfloat16, memory_format=torch.channels_last), t, label)
        return made.float()


@dataclass(frozen=True)
class Subject:
    """A model: where it comes from, how a chain reads it, and its network on the GPU."""

    name: str
    checkpoint: Path
    model: ModelInfo
    network: nn.Module

    def labels(self, batch: int) -> Tensor | None:
        """Classes in turn, int64 (batch,), for a network that takes them."""
        if self.model.num_classes is None:
            return None
        return torch.arange(batch, device="cuda") % self.model.num_classes

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        """Arguments of one call: random x, t = 500 and labels."""
        x = torch.randn(batch, *self.model.shape, device="cuda")
        labels = self.labels(batch)
        return (x, torch.full((1,), 500.0, device="cuda"), *(() if labels is None else (labels,)))

    @cached_property
    def flops(self) -> float:
        """Floating point operations of one image's network call, a multiplication and an addition being two."""
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        # attention as matrix products, which every torch counts
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(*self.inputs(1))
        return float(counter.get_total_flops())


def open_subject(name: str) -> Subject:
    """A subject by its name, on the GPU."""
    checkpoint = CHECKPOINT if name == "shipped" else random_checkpoint(BUILT / name, DDPM_CIFAR10)
    config, network = load_model(checkpoint)
    model = ModelInfo(
        name=name,
        shape=config.unet.image_shape,
        out_channels=config.unet.out_channels,
        variance_type="learned_range" if config.unet.learn_variance else "fixed_small",
        prediction_type=config.prediction_type,  # type: ignore[arg-type]
        num_classes=config.unet.num_classes,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
    return Subject(name, checkpoint, model, Bf16(network))


def random_checkpoint(folder: Path, config: UNetConfig) -> Path:
    """A checkpoint with random weights; a fresh network ends in zeros and returns nothing else."""
    if not (folder / WEIGHTS).is_file():
        torch.manual_seed(0)
        network = UNet(config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
        save_model(folder, ModelConfig(folder.name, config, "linear", {"timesteps": 1000}), network.state_dict())
    return folder
